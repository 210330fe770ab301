"""Questions to the engine that can answer them; and what a few routed questions teach a router."""

from pathlib import Path
from tempfile import TemporaryDirectory

from gliclass_rerank import Route, Router

ROUTES = [
    Route("billing", "invoices, payments, refunds and prices"),
    Route("shipping", "delivery times, tracking and addresses"),
    Route("technical", "errors, bugs and how to use the product", examples=("the app crashes at start",)),
]
ROUTED = {  # None: none of these
    "I was charged twice this month": "billing",
    "Can I get my money back?": "billing",
    "How much is the yearly plan?": "billing",
    "When will my parcel arrive?": "shipping",
    "The package went to my old address": "shipping",
    "Do you deliver to Norway?": "shipping",
    "I get error 500 when I log in": "technical",
    "How do I export my data?": "technical",
    "The screen stays black after the update": "technical",
    "What is the capital of Peru?": None,
    "Tell me a joke": None,
    "Who won the match yesterday?": None,
}
QUESTIONS = ["where is my order?", "please refund the last invoice", "what rhymes with orange?"]

router = Router(ROUTES, fallback="a person")
for question, decision in zip(QUESTIONS, router.route_many(QUESTIONS), strict=True):
    print(f"{decision.name:10} {decision.score:.3f}  {question}")

report = router.fit(list(ROUTED), list(ROUTED.values()))
print(f"\nfitted on {len(ROUTED)} questions; accuracy on those left out {report.accuracy:.2f}")
for question, decision in zip(QUESTIONS, router.route_many(QUESTIONS), strict=True):
    print(f"{decision.name:10} {decision.score:.3f}  {question}")

router.add_examples("shipping", ["has my parcel been sent?"])  # the router learns again
print(f"\n{router.route('has the parcel been sent yet?').name}")

with TemporaryDirectory() as folder:
    file = Path(folder) / "router.json"
    router.save(file)  # readable JSON, and vectors beside it; it loads only with the model that it was fitted on
    assert Router.load(file).route(QUESTIONS[0]) == router.route(QUESTIONS[0])
