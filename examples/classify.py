"""Labels for texts: any that hold or exactly one, nested ones, examples that show what is meant, long documents."""

from gliclass_rerank import Classifier, Example

TEXT = "The new phone has a wonderful camera, but its battery is empty by noon."

classifier = Classifier()
for found in classifier.classify(TEXT, ["technology", "cooking", "sport"]).labels:
    print(f"{found.label} {found.score:.3f}")

best = classifier.classify(TEXT, ["technology", "cooking", "sport"], multi_label=False)
print("exactly one:", best.labels[0].label)

nested = classifier.classify(TEXT, {"topic": ["phones", "kitchens"], "tone": ["mixed", "angry"]}, hierarchical=True)
print("nested:", nested.tree)

examples = [Example("The knife is sharp, the handle is weak.", ("pros and cons",))]
shown = classifier.classify(TEXT, ["pros and cons", "praise only"], examples=examples, multi_label=False)
print("with an example:", shown.labels[0].label)

report = "Nothing of note happened that day. " * 150 + "In the evening the dam broke and the village was flooded."
(found,) = classifier.classify(report, ["a flood"], threshold=0.0).labels
start, end = found.window or (0, len(report))
print(f"a flood {found.score:.3f}, read in characters {start} to {end} of {len(report)}")
