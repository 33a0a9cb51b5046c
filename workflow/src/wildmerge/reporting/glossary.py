"""The words of a report, for a reader who meets them for the first time."""

# Term -> what it means here. The report links each term's first use in a section to its entry.
GLOSSARY = {
    "base": "The pretrained or instruction-tuned model that all checkpoints of a family were "
    "fine-tuned from.",
    "checkpoint": "A fine-tuned model that somebody published, or that lies in a folder. The ones "
    "that are merged are the members of the merge.",
    "task vector": "A checkpoint's weights minus its base's.",
    "method": "A way to make one model out of a base and several task vectors. With its parameters "
    "it is a recipe.",
    "subset": "The checkpoints that are merged. All methods merge the same subsets.",
    "draw": "One random subset of a given size. n04-07 is draw 7 of size 4.",
    "suite": "The benchmarks that every model is asked, and how.",
    "accuracy": "The plain mean over a suite's tasks, as in the paper.",
    "gain": "A difference of two accuracies, in percentage points; on a text, in hundredths of a "
    "bit a byte.",
    "churn": "The share of questions whose outcome differs between two models. A difference can be "
    "no larger, and the smaller the churn, the smaller the differences that can be seen.",
    "interval over questions": "Where the gain of these very models would lie, in 95 of 100 cases, "
    "had other questions of the same tasks been asked.",
    "interval over draws": "Where a method's mean gain would lie had other subsets of the same "
    "checkpoints been merged, these very questions given.",
    "corrected": "Of many tests without any true difference, 5 in 100 would come out by chance. "
    "Holm's correction keeps the chance of any false verdict in a family of tests below 5 %; "
    "Benjamini and Hochberg's keeps the expected share of false verdicts below 5 %.",
}
