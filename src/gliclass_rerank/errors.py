"""Errors raised by this package.

    GLiClassRerankError
    ├── InputError (ValueError)          the input cannot be scored
    │   ├── InvalidTextError             not a string, empty, NUL or a lone surrogate
    │   │   └── UnreadableTextError      the model's tokenizer or vocabulary covers (almost) nothing of it
    │   ├── TextTooLongError             long_text="error" and the text does not fit the model
    │   ├── LabelTooLongError            one label does not fit the model; labels are never cut
    │   └── OptionError                  an option has an invalid value
    ├── ModelError                       the model cannot be used
    │   ├── ModelNotFoundError           no such folder, hub repository or cached file
    │   ├── CheckpointError              the folder exists, but is no usable checkpoint
    │   ├── UnsupportedModelError        a layout, flag or backbone unsupported here or by the installed packages
    │   │   ├── NoVectorsError           the model gives no vectors of texts
    │   │   └── NoPromptsError           the model was not trained with prompts
    │   ├── NonFiniteError               weights or scores are NaN or infinite
    │   ├── DeviceMemoryError            a single sequence does not fit into the device's memory
    │   └── NotPicklableError (pickle.PicklingError)  a scorer without a source to load it from
    ├── ServiceError                     a service did not answer, or refused
    └── MissingExtraError (ImportError)  an optional part of the package is not installed

Each message has the expected input, the actual input, and a remedy.
"""

from pickle import PicklingError


class GLiClassRerankError(Exception):
    """Base of all errors raised by this package."""


class InputError(GLiClassRerankError, ValueError):
    """The input cannot be scored."""


class InvalidTextError(InputError):
    """A text, query, passage or label is not a string, is empty, or contains characters that no tokenizer can read."""


class UnreadableTextError(InvalidTextError):
    """The tokenizer leaves nothing of a text or label, or the model's vocabulary covers (almost) nothing of it.

    Attributes:
        place: its position in the input, "passage 3".
        text: the whole text.
        reason: why it cannot be read.
    """

    def __init__(self, place: str, text: str, reason: str) -> None:
        super().__init__(place, text, reason)
        self.place, self.text, self.reason = place, text, reason

    def __str__(self) -> str:
        return f"{self.place}: {self.text[:40]!r} cannot be read: {self.reason}"


class TextTooLongError(InputError):
    """A text does not fit the model, with ``long_text="error"``."""


class LabelTooLongError(InputError):
    """A label, or prompt and examples together, leave no room for the text. Labels are never cut."""


class OptionError(InputError):
    """An option has an invalid value."""


class ModelError(GLiClassRerankError):
    """The model cannot be used."""


class ModelNotFoundError(ModelError):
    """There is no such folder, hub repository or cached file."""


class CheckpointError(ModelError):
    """The folder exists, but is no usable checkpoint."""


class UnsupportedModelError(ModelError):
    """The checkpoint has a layout, flag or backbone that this package, or an installed dependency, cannot run."""


class NoVectorsError(UnsupportedModelError):
    """The model gives no vectors of texts."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model

    def __str__(self) -> str:
        return (
            f"{self.model}: it has no vectors of texts; take a model whose info.embeds is true, one with independent "
            "labels"
        )


class NoPromptsError(UnsupportedModelError):
    """The model was not trained with prompts, so an instruction would be more text to it."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model

    def __str__(self) -> str:
        return (
            f"instruction: expected none, got one, and {self.model} was not trained with prompts; leave it out, take a "
            'model whose info.prompts is true, or write "prompts": true into the gliclass_rerank.json of a model that '
            "was trained with them"
        )


class NonFiniteError(ModelError):
    """The model's weights or scores are NaN or infinite."""


class DeviceMemoryError(ModelError):
    """A single sequence does not fit into the free memory of the device."""


class NotPicklableError(ModelError, PicklingError):
    """The scorer was built from objects in memory, so it has no source to load it from again."""


class ServiceError(GLiClassRerankError):
    """A service did not answer, refused, or sent an invalid answer. ``status``: its HTTP status, if any."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class MissingExtraError(GLiClassRerankError, ImportError):
    """An optional part of the package is needed and not installed."""

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the extra [{extra}]: pip install 'gliclass-rerank[{extra}]'")
        self.extra, self._purpose = extra, purpose

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str]]:
        return type(self), (self.extra, self._purpose)
