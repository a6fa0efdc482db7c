"""What a recipe for metric learning may say beyond the common sections."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from hf_tasks.data.sources import Section, Source

Positive = Annotated[float, Field(gt=0)]
Memory = Annotated[
    int, Field(ge=0, description="Embeddings of earlier batches that are compared with as well; 0 for none.")
]


class Columns(Section):
    """Which columns of the rows are used."""

    image: str | None = Field(
        None, description="Column of picture paths; left out: image_path, or a Hub set's picture column."
    )
    label: str = Field("label", description="Column of the class.")
    group: str | None = Field(
        None,
        description="Column of shots or sessions; pictures of one group are not matched with each other.",
    )
    is_query: str = Field("is_query", description="0/1 column of data.validation: what is looked for.")
    is_gallery: str = Field(
        "is_gallery", description="0/1 column of data.validation: where it is looked for."
    )


class Data(Section):
    """Rows to train on, and pictures to look for in a gallery; their classes may be others."""

    train: Source
    gallery: Source | None = Field(None, description="Known pictures that queries are compared with.")
    query: Source | None = Field(None, description="Pictures to look for in the gallery.")
    validation: Source | None = Field(
        None,
        description="Instead of gallery and query: one set, split by the columns is_query and is_gallery, or "
        "without them serving as both.",
    )
    columns: Columns = Columns()
    allow_outside: bool = Field(
        False,
        description="Take pictures whose paths or links lead out of the folder that their source names.",
    )

    @model_validator(mode="after")
    def _queries_have_a_gallery(self) -> "Data":
        pair = (self.gallery is not None) + (self.query is not None)
        if pair == 1:
            missing = "query" if self.query is None else "gallery"
            raise ValueError(
                f"data.{missing}: missing; wanted data.gallery and data.query, or data.validation for one "
                "set that serves as both"
            )
        if (pair == 2) == (self.validation is not None):
            raise ValueError("data: wanted either data.gallery and data.query, or data.validation")
        return self


class Model(Section):
    """The network and where its weights come from."""

    name: str = Field(description="timm architecture, Hub id, or the folder of an earlier run.")
    pretrained: bool = Field(True, description="Start from the published weights of `name`.")
    weights: str | None = Field(
        None, description="Local .safetensors or .pth file of weights, instead of published ones."
    )
    image_size: int | None = Field(
        None, ge=8, le=4096, description="Side of the network's input, pixels; left out: its own."
    )
    embedding_size: int | None = Field(
        None, ge=2, description="Width of a linear projection; left out: the network's own features."
    )
    pooling: Literal["avg", "max", "avgmax", "catavgmax"] | None = Field(
        None, description="How places are pooled, in timm's words; left out: the network's own way."
    )


class ArcFace(Section):
    """Angular margin to the centre of the true class (arXiv:1801.07698)."""

    name: Literal["arcface"] = "arcface"
    margin: float = Field(0.5, ge=0, le=2.3, description="Added angle, radians.")
    scale: Positive = Field(64.0, description="Inverse temperature.")


class SubCentreArcFace(Section):
    """ArcFace with several centres a class, for noisy labels (ECCV 2020, Deng et al.)."""

    name: Literal["sub-centre-arcface"]
    margin: float = Field(0.5, ge=0, le=2.3, description="Added angle, radians.")
    scale: Positive = Field(64.0, description="Inverse temperature.")
    centres: int = Field(3, ge=1, description="Centres of each class.")


class CosFace(Section):
    """Cosine margin to the centre of the true class (arXiv:1801.09414)."""

    name: Literal["cosface"]
    margin: float = Field(0.4, ge=0, lt=2, description="Taken off the cosine.")
    scale: Positive = Field(30.0, description="Inverse temperature.")


class SphereFace(Section):
    """Multiplied angle to the centre of the true class (arXiv:1704.08063)."""

    name: Literal["sphereface"]
    margin: float = Field(1.35, ge=1, description="Factor of the angle.")
    scale: Positive = Field(64.0, description="Inverse temperature.")


class NormalisedSoftmax(Section):
    """Cosines to class centres as logits (arXiv:1811.12649)."""

    name: Literal["normalised-softmax"]
    temperature: Positive = Field(0.05, description="Divides the cosines.")


class ProxyAnchor(Section):
    """Class centres as anchors for the pictures of the batch (arXiv:2003.13911)."""

    name: Literal["proxy-anchor"]
    margin: float = Field(0.1, ge=0, lt=2)
    alpha: Positive = Field(32.0)


class Triplet(Section):
    """The hardest positive against the hardest negative of each picture (arXiv:1703.07737)."""

    name: Literal["triplet"]
    margin: float = Field(0.2, gt=0, description="By how much the negative must be further, Euclidean.")
    memory: Memory = 0


class MultiSimilarity(Section):
    """Weighted hard pairs (arXiv:1904.06627)."""

    name: Literal["multi-similarity"]
    alpha: Positive = Field(2.0, description="Weight of positives.")
    beta: Positive = Field(50.0, description="Weight of negatives.")
    base: float = Field(0.5, ge=-1, le=1, description="Cosine that divides positives from negatives.")
    epsilon: float = Field(0.1, ge=0, description="Slack of the mining of hard pairs.")
    memory: Memory = 0


class SupervisedContrastive(Section):
    """Positives against all others of the batch (arXiv:2004.11362)."""

    name: Literal["supervised-contrastive"]
    temperature: Positive = Field(0.1, description="Divides the cosines.")
    memory: Memory = 0


# fmt: off
PmlName = Literal[
    "pml/AngularLoss", "pml/ArcFaceLoss", "pml/CircleLoss", "pml/ContrastiveLoss", "pml/CosFaceLoss",
    "pml/DynamicSoftMarginLoss", "pml/FastAPLoss", "pml/GeneralizedLiftedStructureLoss", "pml/HistogramLoss",
    "pml/InstanceLoss", "pml/IntraPairVarianceLoss", "pml/LargeMarginSoftmaxLoss", "pml/LiftedStructureLoss",
    "pml/ManifoldLoss", "pml/MarginLoss", "pml/MultiSimilarityLoss", "pml/NCALoss", "pml/NPairsLoss",
    "pml/NTXentLoss", "pml/NormalizedSoftmaxLoss", "pml/P2SGradLoss", "pml/PNPLoss", "pml/ProxyAnchorLoss",
    "pml/ProxyNCALoss", "pml/RankedListLoss", "pml/SignalToNoiseRatioContrastiveLoss", "pml/SmoothAPLoss",
    "pml/SoftTripleLoss", "pml/SphereFaceLoss", "pml/SubCenterArcFaceLoss", "pml/SupConLoss",
    "pml/ThresholdConsistentMarginLoss", "pml/TripletMarginLoss", "pml/TupletMarginLoss",
]
# fmt: on


class Pml(Section):
    """A loss of pytorch-metric-learning, with any of its arguments that YAML can write."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: PmlName


Loss = Annotated[
    ArcFace
    | SubCentreArcFace
    | CosFace
    | SphereFace
    | NormalisedSoftmax
    | ProxyAnchor
    | Triplet
    | MultiSimilarity
    | SupervisedContrastive
    | Pml,
    Field(discriminator="name"),
]
PAIR_LOSSES = (Triplet, MultiSimilarity, SupervisedContrastive, Pml)


class Sampler(Section):
    """Batches of P classes with K pictures each."""

    classes: int = Field(ge=2, description="Classes in a batch, over all processes.")
    pictures: int = Field(ge=2, description="Pictures of each class in a batch.")


class Cutoff(Section):
    """How the distance is chosen beyond which a query is refused as unknown."""

    false_accept_rate: float | None = Field(
        None, ge=0, lt=1, description="Share of unknown pictures to accept; left out: best balanced accuracy."
    )


class Settings(Section):
    """The sections of a metric-learning recipe."""

    data: Data
    on_bad_example: Literal["error", "skip"] = Field(
        "error", description="Rows that cannot be used: refuse them, or leave them out and list them."
    )
    model: Model
    augmentation: str = Field("light", description="none, light, medium, hard, or the path of a YAML file.")
    cache: bool = Field(
        False, description="Decode pictures once, and train from what is kept below HF_DATASETS_CACHE."
    )
    loss: Loss = ArcFace()
    sampler: Sampler | None = Field(
        None, description="Left out: shuffled rows for losses with class centres, 8 x 4 for losses of pairs."
    )
    cutoff: Cutoff = Cutoff()
    ks: list[Annotated[int, Field(ge=1)]] = Field(
        [1, 5, 10], min_length=1, description="Places at which cmc_at_k and precision_at_k are measured."
    )
    approximate_above: int | None = Field(
        None, ge=1, description="Gallery pictures above which FAISS ranks them; left out: always exactly."
    )
    flip_average: bool = Field(False, description="Embed by the mean over each picture and its mirror image.")

    @property
    def batches(self) -> Sampler | None:
        """The sampler, with its default for losses of pairs."""
        if self.sampler is None and isinstance(self.loss, PAIR_LOSSES):
            return Sampler(classes=8, pictures=4)
        return self.sampler
