"""Trainers by method: those of TRL, and our own for the paper's loss. Heavy libraries load late."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from agents.plugins import exception_line
from sandbox.text import install_command, short
from sandbox.training.alpaca import CHAT_TEMPLATE
from sandbox.training.data import TrainingData
from sandbox.training.encoding import check_template, encode
from sandbox.training.settings import ALPACA, TrainSettings
from storage.errors import InputError

_CLASSES = {"sft": "SFT", "dpo": "DPO", "kto": "KTO", "reward": "Reward"}

_REFUSED = {
    "output_dir": "--out is the folder",
    "resume_from_checkpoint": "it follows from the folder",
    "load_best_model_at_end": "the model is that of the last step",
    "chat_template_path": "the key is chat_template",
    "remove_unused_columns": "it follows from the method",
    **dict.fromkeys(("push_to_hub", "hub_token", "hub_model_id"), "the folder can be pushed later"),
}
"""Arguments that cannot be given, and why."""


class Prepared(NamedTuple):
    """A trainer, ready to train, and how many rows leave no room for an answer."""

    trainer: Any
    left_out: int


def check_libraries() -> None:
    """Check that what training needs is installed.

    Raises:
        InputError: a library is missing.
    """
    try:
        import accelerate  # noqa: F401
        import peft  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
        import trl  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"train: {error.name or exception_line(error)} is not installed; expected it: "
            f"{install_command('train')}"
        ) from None


_LIBRARIES = r"(transformers|trl|peft|accelerate|torch|datasets)(\.|$)"


@contextmanager
def quiet() -> Iterator[None]:
    """Leave standard output, and all but errors on standard error, to this program."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=_LIBRARIES)
        yield


def config_class(method: str) -> Any:
    """The class of a method's arguments."""
    if method == "cpo":
        from sandbox.training.contrastive import ContrastiveConfig

        return ContrastiveConfig
    import trl

    return getattr(trl, f"{_CLASSES[method]}Config")


def make_arguments(settings: TrainSettings, folder: Path) -> Any:
    """Make the arguments of a trainer, with defaults that follow from the machine.

    Args:
        settings: the settings.
        folder: of the checkpoints.

    Raises:
        InputError: there is no such argument, or a value is invalid.
    """
    kind = config_class(settings.method)
    given = _checked(kind, settings.arguments)
    if settings.method == "cpo":
        given |= {key: getattr(settings, key) for key in ("ratio", "margin", "responses", "worst")}
    given = _of_machine(given) | given
    try:
        made = kind(output_dir=str(folder), disable_tqdm=True, **given)
    except Exception as error:  # whatever a class of theirs raises for a value
        reason = short(exception_line(error), 300)
        raise InputError(f"settings: {kind.__name__} takes other values: {reason}") from None
    made._n_gpu = min(made.n_gpu, 1)  # several GPUs: a process for each
    return made


def _of_machine(given: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults that depend on the machine."""
    import torch

    cpu = given.get("use_cpu")
    cpu = not torch.accelerator.is_available() if cpu is None else bool(cpu)
    bf16 = not cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return {
        "use_cpu": cpu,
        "full_determinism": cpu,
        "bf16": bf16 and not given.get("fp16"),
        "gradient_checkpointing": not cpu,
        "dataloader_pin_memory": not cpu,
    }


def _checked(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name for field in fields(kind) if field.init}
    hints = get_type_hints(kind)
    checked = {}
    for name, value in given.items():
        if name in _REFUSED:
            raise InputError(f"{name}: found a value; expected none: {_REFUSED[name]}")
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *TrainSettings.model_fields], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            expected = f"expected an argument of {kind.__name__}{hint}"
            raise InputError(f"{name}: unknown key; {expected}")
        checked[name] = _typed(name, value, hints[name])
    for name, (allowed, expected) in _RANGES.items():
        found = checked.get(name)
        if isinstance(found, int | float) and not allowed(found):
            raise InputError(f"{name}: found {found}; expected {expected}")
    _check_limit(checked.get("save_total_limit"))
    return checked


def _from_1(value: float) -> bool:
    return value >= 1


_RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "learning_rate": (lambda value: 0 < value < math.inf, "a number above 0"),
    "num_train_epochs": (lambda value: 0 < value < math.inf, "a number above 0"),
    "max_steps": (lambda value: value == -1 or value >= 1, "1 or more, or -1 for whole epochs"),
    "per_device_train_batch_size": (_from_1, "1 or more"),
    "gradient_accumulation_steps": (_from_1, "1 or more"),
    "max_length": (_from_1, "1 or more"),
    "seed": (lambda value: 0 <= value < 2**32, "0 to 4294967295"),
    "data_seed": (lambda value: 0 <= value < 2**32, "0 to 4294967295"),
}
"""Of arguments whose class takes any number: what is allowed, in words too."""


def _typed(name: str, value: Any, hint: Any) -> Any:
    """A value of the type of an argument: YAML reads ``2e-5`` as a text."""
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        return adapter.validate_python(value)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        expected = reason[:1].lower() + reason[1:]
        raise InputError(f"{name}: found {short(repr(value), 60)}; expected: {expected}") from None
    except PydanticUserError:  # a type that only the class itself understands
        return value


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 2:
        raise InputError(
            f"save_total_limit: found {limit}; expected 2 or more, since one checkpoint may be "
            "incomplete when a process is killed"
        )


def load_tokenizer(settings: TrainSettings) -> Any:
    """Load a model's tokenizer, with a chat template and a token for padding.

    Raises:
        InputError: it cannot be loaded, or has no chat template that can be trained with.
    """
    from transformers import AutoTokenizer

    tokenizer = _loaded(AutoTokenizer, settings.model)
    template = _template(settings.chat_template)
    if template is not None and tokenizer.chat_template not in (None, template):
        raise InputError(
            f"chat_template: the tokenizer of {settings.model} has one of its own; expected none"
        )
    tokenizer.chat_template = tokenizer.chat_template or template
    if not tokenizer.chat_template:
        raise InputError(
            f"model: the tokenizer of {settings.model} has no chat template; expected one, or "
            "chat_template: alpaca"
        )
    if tokenizer.eos_token is None:
        raise InputError(f"model: the tokenizer of {settings.model} has no eos_token; expected one")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    check_template(tokenizer)
    return tokenizer


def _template(wanted: str | None) -> str | None:
    if wanted is None or wanted == ALPACA:
        return wanted and CHAT_TEMPLATE
    try:
        return Path(wanted).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        expected = "expected alpaca, or a file with a Jinja template"
        raise InputError(f"chat_template: {wanted}: cannot be read: {reason}; {expected}") from None


def load_model(settings: TrainSettings, arguments: Any, tokenizer: Any) -> Any:
    """Load the model that is trained, in single precision unless `model_init_kwargs` says else.

    Raises:
        InputError: it cannot be loaded, or does not fit its tokenizer.
    """
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        set_seed,
    )

    set_seed(arguments.seed)  # a new head has random weights
    options = {"dtype": "float32", **(arguments.model_init_kwargs or {})}
    if settings.method == "reward":
        kind, options = AutoModelForSequenceClassification, {"num_labels": 1, **options}
    else:
        kind = AutoModelForCausalLM
    model = _loaded(kind, settings.model, **options)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise InputError(
            f"model: the tokenizer of {settings.model} has {len(tokenizer):,} tokens, and the "
            f"model {rows:,}; expected a tokenizer that belongs to it"
        )
    model.config.pad_token_id = tokenizer.pad_token_id
    return model


def _loaded(kind: Any, name: str, **options: Any) -> Any:
    folder = Path(name).expanduser()
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if not folder.is_dir() and (is_path or ("/" in name and folder.parent.is_dir())):
        raise InputError(f"model: found no folder {name}; expected one, or a name on the hub")
    try:
        return kind.from_pretrained(name, **options)
    except Exception as error:  # damaged files make their loaders raise anything
        reason = short(exception_line(error), 300)
        raise InputError(f"model: {name}: cannot be loaded: {reason}") from None


def prepare(
    settings: TrainSettings,
    data: TrainingData,
    arguments: Any,
    callbacks: Sequence[Any],
) -> Prepared:
    """Load the model and make the trainer of the method.

    Raises:
        InputError: the model cannot be loaded or trained, or no row fits into `max_length`.
    """
    from transformers import PrinterCallback

    tokenizer = load_tokenizer(settings)
    model = load_model(settings, arguments, tokenizer)
    make = _contrastive if settings.method == "cpo" else _of_trl
    try:
        trainer = make(settings, data, arguments, tokenizer, model, callbacks)
    except ValueError as error:  # arguments that their trainer does not take together
        reason = short(exception_line(error), 300)
        raise InputError(f"settings: the trainer takes other values: {reason}") from None
    rows = 0 if trainer.train_dataset is None else len(trainer.train_dataset)
    if not rows:
        raise InputError(
            f"max_length: found {arguments.max_length}; expected more than the tokens of every "
            "prompt"
        )
    trainer.remove_callback(PrinterCallback)
    return Prepared(trainer, 0 if getattr(arguments, "packing", False) else len(data.train) - rows)


def _contrastive(
    settings: TrainSettings,
    data: TrainingData,
    arguments: Any,
    tokenizer: Any,
    model: Any,
    callbacks: Sequence[Any],
) -> Any:
    from peft import get_peft_model
    from transformers import set_seed

    from sandbox.training.contrastive import ContrastiveTrainer

    adapter = _adapter(settings)
    if adapter is not None:
        set_seed(arguments.seed)
        model = get_peft_model(model, adapter)
        if arguments.gradient_checkpointing:
            model.enable_input_require_grads()
    return ContrastiveTrainer(
        model=model,
        args=arguments,
        train_dataset=data.train,
        eval_dataset=data.test,
        processing_class=tokenizer,
        callbacks=callbacks,
    )


def _of_trl(
    settings: TrainSettings,
    data: TrainingData,
    arguments: Any,
    tokenizer: Any,
    model: Any,
    callbacks: Sequence[Any],
) -> Any:
    import trl
    from datasets import Dataset

    change = _tokens if settings.method == "sft" else _texts
    train, test = (
        Dataset.from_list([change(row, tokenizer) for row in rows])
        for rows in (data.train, data.test)
    )
    return getattr(trl, f"{_CLASSES[settings.method]}Trainer")(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=test if len(test) else None,
        processing_class=tokenizer,
        peft_config=_adapter(settings),
        callbacks=list(callbacks),
    )


def _tokens(row: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    """A row of `sft` as tokens, of which only the answer's are learnt."""
    *asked, said = row["messages"]
    tokens, labels = encode(tokenizer, asked, said["content"]).cut(None)
    return {"input_ids": tokens, "labels": labels}


_COLUMNS = ("prompt", "chosen", "rejected", "completion", "label", "margin")


def _texts(row: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    """The columns of a row that TRL reads."""
    return {key: row[key] for key in _COLUMNS if row.get(key) is not None}


def _adapter(settings: TrainSettings) -> Any:
    if settings.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=settings.lora.r,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules="all-linear",
        task_type="SEQ_CLS" if settings.method == "reward" else "CAUSAL_LM",
    )
