"""Which run is this: typed config, sweeps, claims, the run folder, the runner.

Its rooms, of which each may import those behind it: `terminal`, `studies`, `outlets`, `running`,
`folders`, `config`, `claims`, `reading`; and `errors`, which all of them raise.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
