"""Settings of JAX that change numbers belong to a run's identity."""

import jax
import pytest

from sgdlab import rules, tasks, timelines, training
from sgdlab.training.checkpoints.identity import ResumeError
from sgdlab.training.checkpoints.settings import describe_settings

SETTINGS = {
    "jax_default_prng_impl": ("threefry2x32", "rbg"),
    "jax_threefry_partitionable": (True, False),
    "jax_enable_x64": (False, True),
    "jax_default_matmul_precision": (None, "bfloat16"),
}


def run(folder, updates=4, **options):
    return training.replay(
        tasks.quadratic([1.0, 0.5]),
        rules.sgd(0.1),
        timelines.fixed_delay(1, updates=updates),
        checkpoint=training.CheckpointPlan(folder),
        **options,
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_a_resume_under_another_setting_is_refused_with_both_values(name, tmp_path):
    then, now = SETTINGS[name]
    assert getattr(jax.config, name) == then
    run(tmp_path)
    key = name.replace("jax_", "jax.", 1)
    jax.config.update(name, now)
    try:
        with (
            jax.numpy_dtype_promotion("standard"),  # strict, jax's own draws fail at 64 bits
            pytest.raises(ResumeError, match=rf'{key}: "{then}" in the .*, "{now}" in this run'),
        ):
            run(tmp_path, updates=8, resume=True)
    finally:
        jax.config.update(name, then)
    run(tmp_path, updates=8, resume=True)


def test_flags_of_xla_count_unless_they_change_no_number(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x --xla_force_host_platform_device_count=4")
    assert describe_settings()["jax.xla_flags"] == ""
    run(tmp_path)
    monkeypatch.setenv("XLA_FLAGS", "--xla_b=1 --xla_dump_hlo_as_text --xla_a=2")
    flags = "--xla_a=2 --xla_b=1"
    with pytest.raises(ResumeError, match=f'jax.xla_flags: "" in the .*, "{flags}" in this run'):
        run(tmp_path, updates=8, resume=True)
