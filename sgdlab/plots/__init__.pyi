from .comparisons import (
    comparison as comparison,
    utilisation as utilisation,
)
from .exponents import (
    gradient_exponents as gradient_exponents,
)
from .gantt_chart import (
    gantt as gantt,
    timeline as timeline,
)
from .histogram import (
    staleness_histogram as staleness_histogram,
)
from .lines import (
    Series as Series,
    band as band,
    band_name as band_name,
    curves as curves,
)
from .resampling import (
    resample as resample,
)
from .scale import (
    StalenessScale as StalenessScale,
    staleness_scale as staleness_scale,
)
from .svg import (
    to_svg as to_svg,
)
from .sweeps import (
    sweep as sweep,
)
from .theme import (
    WIDTH as WIDTH,
    LabFigure as LabFigure,
    printable as printable,
    series_colour as series_colour,
)
