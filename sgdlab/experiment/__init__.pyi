from .claims.judging import Judgement as Judgement
from .config.building import build_cluster as build_cluster, draw_timelines as draw_timelines
from .config.experiment import (
    Experiment as Experiment,
    Point as Point,
    load_experiment as load_experiment,
)
from .config.schema import Config as Config, config_schema as config_schema
from .errors import (
    AbortError as AbortError,
    BusyError as BusyError,
    ConfigError as ConfigError,
    DataFileError as DataFileError,
    ExperimentError as ExperimentError,
    FailedError as FailedError,
    IncompleteError as IncompleteError,
    OutputError as OutputError,
    StoppedError as StoppedError,
)
from .folders.folder import (
    RunFolder as RunFolder,
    create_folder as create_folder,
    find_config as find_config,
    new_id as new_id,
    open_folder as open_folder,
)
from .folders.loading import load_run as load_run, load_runs as load_runs
from .folders.run import Member as Member, Run as Run
from .folders.settling import check_claims as check_claims
from .outlets.choosing import check_outlets as check_outlets, open_outlets as open_outlets
from .outlets.exporting import export_run as export_run
from .outlets.following import Follower as Follower
from .running.backend import look_for_nans as look_for_nans, prepare_backend as prepare_backend
from .running.isolation import Isolation as Isolation
from .running.making import Progress as Progress
from .running.runner import (
    follow_run as follow_run,
    resume_run as resume_run,
    run_experiment as run_experiment,
)
from .studies.calibration import (
    Calibration as Calibration,
    calibrate as calibrate,
    calibrate_experiment as calibrate_experiment,
)
from .studies.precision import (
    choose_policies as choose_policies,
    format_ranges as format_ranges,
    study_precision as study_precision,
)
from .studies.previews import check_timelines as check_timelines, preview as preview
from .studies.verifying import (
    Verification as Verification,
    find_experiments as find_experiments,
    verify_experiment as verify_experiment,
)
