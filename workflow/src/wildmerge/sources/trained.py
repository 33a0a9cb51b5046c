"""A checkpoint that is fine-tuned here, as config/experts.yaml says."""

from wildmerge import WildmergeError

from ._source import Source, Wanted


class Trained(Source):
    """An expert of the examples; the rule `finetune` makes it, not the rule `download`."""

    prefix = "trained:"
    form = "`trained:name` for an expert of experts.yaml"
    repo = "trained:[a-z0-9-]+"
    revision_form = "An expert of experts.yaml has no revision."

    def fetch(self, wanted: Wanted) -> None:
        """Refuse: there is nothing to fetch."""
        raise WildmergeError(
            f"A source that can be fetched was expected, found `{wanted.repo}`: experts of "
            "config/experts.yaml are fine-tuned by their own rule. Ask for a study of "
            "theirs, such as `snakemake demo`."
        )
