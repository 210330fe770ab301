"""Each sentence of an answer against the evidence, and the answer without what the evidence does not support."""

from gliclass_rerank import FactChecker

EVIDENCE = [
    "The Danube rises in the Black Forest in Germany and flows southeast for 2,850 km.",
    "It passes through ten countries before it reaches the Black Sea.",
]
ANSWER = "The Danube rises in Germany. It flows into the Baltic Sea. It passes through ten countries."

checker = FactChecker()
report = checker.check(ANSWER, EVIDENCE)
for claim in report.claims:
    print(f"{claim.verdict:16} {claim.support:.3f} {claim.refute:.3f}  {claim.text}  (passage {claim.evidence})")
print(f"supported: {report.supported:.0%}")
print("filtered:", checker.filter(ANSWER, EVIDENCE))
