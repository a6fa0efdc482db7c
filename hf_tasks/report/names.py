"""What the figures of metrics.json are called on a page, and a word on what each is."""

NAMES = {
    "accuracy": ("Accuracy", "share of examples with nothing wrong"),
    "average_precision": (
        "Average precision",
        "area under precision over recall; of several classes their mean",
    ),
    "accepted": ("Accepted", "share of queries whose nearest picture is within the cut-off"),
    "bits_per_byte": ("Bits per byte", "of the held-out text, as if packed by the model; 0 at best"),
    "candidates": ("Candidates", "texts among which partners are looked for"),
    "cmc_at_1": ("First is right", "share of known queries whose nearest picture is of their class"),
    "cutoff_distance": ("Cut-off", "distance (1 - cosine) beyond which a query is refused"),
    "f1": ("F1", "balance of precision and recall"),
    "f1_macro": ("F1, mean over classes", "balance of precision and recall; every class counts alike"),
    "f1_micro": ("F1, all decisions", "balance of precision and recall; every decision counts alike"),
    "f1_weighted": ("F1, weighted", "balance of precision and recall; classes count by their examples"),
    "false_accept_rate": ("Unknown, but accepted", "share of the queries of unknown classes"),
    "gallery": ("Gallery", "pictures that are looked through"),
    "loss": ("Loss", "mean cross entropy; 0 at best"),
    "map_at_r": ("MAP@R", "mean average precision among as many pictures as the class has"),
    "mrr": ("Mean reciprocal rank", "1 over the place of the first match, averaged"),
    "perplexity": ("Perplexity", "tokens the model hesitates between, on average; 1 at best"),
    "precision": ("Precision", "share that is right of what is called true"),
    "queries": ("Queries", "pictures that are looked up"),
    "r_precision": ("R-precision", "share of right ones among as many pictures as the class has"),
    "recall": ("Recall", "share that is called true of what is"),
    "rejected": ("Refused", "share of queries whose nearest picture is beyond the cut-off"),
    "roc_auc": ("ROC-AUC", "chance that a present class, or a true pair, is given more than another"),
    "spearman": ("Rank correlation", "Spearman's, between scores and labels"),
    "threshold": ("Threshold", "score from which a pair is called true"),
    "top_5_accuracy": ("Top-5 accuracy", "share whose class is among the five most probable"),
    "triplet_accuracy": ("Triplets told apart", "share whose true text is nearer than the false one"),
    "true_accept_rate": ("Known and accepted rightly", "share of the queries of known classes"),
    "unknown_queries": ("Unknown queries", "those whose class the gallery lacks"),
    "wrong": ("Accepted wrongly", "share of queries accepted with a class that is not theirs"),
}
FAMILIES = {
    "cmc_at_": ("Right within the first {}", "share of known queries with a match among the {} nearest"),
    "precision_at_": (
        "Precision at {}",
        "mean share of matches among the {} nearest; low where classes are small",
    ),
    "recall_at_": ("Partner within the first {}", "share of texts that find theirs among the {} nearest"),
}
"""Names that end in a number, which stands for the braces."""


def described(name: str) -> tuple[str, str]:
    """The title of a figure, and a word on what it is; empty for one that is not known here."""
    for start, (title, about) in FAMILIES.items():
        if name not in NAMES and name.startswith(start):
            number = name.removeprefix(start)
            return title.format(number), about.format(number)
    return NAMES.get(name, (name.replace("_", " "), ""))
