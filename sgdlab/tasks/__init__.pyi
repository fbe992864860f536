from . import datasets as datasets, table as table
from .classification import (
    classifier as classifier,
    digits as digits,
    images as images,
)
from .convolution import (
    Convolution as Convolution,
)
from .datasets import (
    DataError as DataError,
)
from .definition import (
    RowLoss as RowLoss,
    Task as Task,
)
from .factory import (
    make_partition as make_partition,
    make_task as make_task,
)
from .language import (
    language_model as language_model,
    text as text,
)
from .networks import (
    CNN as CNN,
    MLP as MLP,
    Linear as Linear,
    max_pool as max_pool,
)
from .partitions import (
    by_label as by_label,
    dirichlet as dirichlet,
    iid as iid,
    partition as partition,
    quantity as quantity,
)
from .quadratics import (
    quadratic as quadratic,
)
from .regression import (
    logistic as logistic,
)
from .rows import (
    SparseRows as SparseRows,
    take_rows as take_rows,
)
from .transformer import (
    SIZES as SIZES,
    Transformer as Transformer,
    TransformerConfig as TransformerConfig,
    logical_axes as logical_axes,
)
