"""sentence-transformers' trainers, set up as this package wants them: silent, offline, seeded, able to go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.finetune.networks import Network, require
from orchestrator.finetune.options import Tuning
from orchestrator.stage import Progress

METRIC = "ndcg"

_TRAINERS = {
    "bi_encoder": ("sentence_transformers.sentence_transformer", "SentenceTransformer"),
    "cross_encoder": ("sentence_transformers.cross_encoder", "CrossEncoder"),
    "late_interaction": ("sentence_transformers.multi_vector_encoder", "MultiVectorEncoder"),
}


@dataclass
class Watch:
    """What happens beside the steps.

    Attributes:
        check: the measure that decides when to stop, or None.
        checks: step -> its value; filled in.
        kept: called after each check.
        progress: told ("train", steps, steps in all).
    """

    check: Callable[[Network], float] | None
    checks: dict[int, float]
    kept: Callable[[], None]
    progress: Progress

    def measure(self, network: Network, step: int) -> float:
        """The check at this step."""
        assert self.check is not None
        value = self.check(network)
        self.checks[step] = value
        self.kept()
        return value


def make_trainer(
    network: Network,
    table: Any,
    loss: Any,
    tuning: Tuning,
    seed: int,
    work: Path,
    steps: int,
    batch_size: int,
    watch: Watch,
) -> Any:
    """The trainer of the kind that `network` is, ready for `train()`.

    Args:
        network: what learns.
        table: a `datasets.Dataset` with the columns that `loss` reads.
        loss: module of sentence-transformers.
        tuning: settings.
        seed: of everything random.
        work: folder of the checkpoints.
        steps: in all.
        batch_size: rows of a step.
        watch: what happens beside the steps.
    """
    package, name = _TRAINERS[network.kind]
    module = require(package)
    arguments = getattr(module, f"{name}TrainingArguments")(
        **_arguments(network, table, tuning, seed, work, steps, batch_size, watch.check is not None)
    )
    trainer = _silent(getattr(module, f"{name}Trainer"))(
        model=network.model,
        args=arguments,
        train_dataset=table,
        loss=loss,
        evaluator=_evaluator(network, watch) if watch.check is not None else None,
        callbacks=_callbacks(tuning, watch),
    )
    trainer.remove_callback(require("transformers").PrinterCallback)
    # Checkpoints are for going on, not for reading: no card, whose making would look the base model up on the hub.
    object.__setattr__(network.model, "_create_model_card", lambda *_, **__: None)
    return trainer


def _arguments(
    network: Network, table: Any, tuning: Tuning, seed: int, work: Path, steps: int, batch_size: int, checked: bool
) -> dict[str, Any]:
    every = min(tuning.check_steps, steps)
    prompts = {
        column: prompt
        for column in table.column_names
        if (prompt := network.prompts().get("query" if column == "query" else "document")) and column != "label"
    }
    settings = {
        "output_dir": str(work),
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "learning_rate": tuning.learning_rate,
        "warmup_steps": tuning.warmup,
        "weight_decay": tuning.weight_decay,
        "seed": seed,
        "data_seed": seed,
        "use_cpu": tuning.device == "cpu",
        "batch_sampler": "no_duplicates" if "positive" in table.column_names else by_epoch,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 2,
        "restore_callback_states_from_checkpoint": True,
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "prompts": prompts or None,
    }
    if network.kind == "late_interaction" and (length := network.document_length(tuning.max_length_tokens)):
        settings["max_length"] = {"document": length}
    if checked:
        settings |= {
            "eval_strategy": "steps",
            "eval_steps": every,
            "load_best_model_at_end": True,
            "metric_for_best_model": METRIC,
            "greater_is_better": True,
        }
    return settings


def _silent(trainer: Any) -> Any:
    """The trainer without the model card that it keeps: its facts would be gathered for minutes and thrown away."""

    class Silent(trainer):  # type: ignore[misc]  # a class known when it runs
        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """Adds none."""

    return Silent


def by_epoch(dataset: Any, generator: Any = None, **settings: Any) -> Any:
    """A sampler that shuffles by seed and epoch alone, so that a training that goes on sees the same batches.

    A function of the module: the arguments that name it are kept beside each checkpoint, pickled.
    """
    base: Any = require("sentence_transformers.base.sampler").DefaultBatchSampler

    class ByEpoch(base):  # type: ignore[misc]  # a class known when it runs
        def __iter__(self) -> Any:
            self.generator.manual_seed(self.seed + self.epoch)
            return super().__iter__()

    order = require("torch").utils.data.RandomSampler(dataset, generator=generator)
    return ByEpoch(order, generator=generator, **settings)


def _evaluator(network: Network, watch: Watch) -> Any:
    base: Any = require("sentence_transformers.base.evaluation").BaseEvaluator

    class Reranked(base):  # type: ignore[misc]  # a class known when it runs
        def __call__(self, model: Any, output_path: Any = None, epoch: float = -1, steps: int = -1) -> dict[str, float]:
            return {METRIC: watch.measure(network, steps)}

    return Reranked()


def _callbacks(tuning: Tuning, watch: Watch) -> list[Any]:
    transformers = require("transformers")
    base: Any = transformers.TrainerCallback

    class Beside(base):  # type: ignore[misc]  # a class known when it runs
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            watch.progress("train", state.global_step, state.max_steps)
            if state.global_step >= state.max_steps:
                control.should_evaluate = watch.check is not None
                control.should_save = True
            return control

    stop = transformers.EarlyStoppingCallback(tuning.patience) if watch.check and tuning.patience else None
    return [Beside(), *([stop] if stop else [])]
