"""Every error that this package raises on purpose.

    GLiClassRerankError
    ├── InputError (ValueError)          what the caller passed cannot be scored
    │   ├── InvalidTextError             not a string, empty, NUL or a lone surrogate
    │   │   └── UnreadableTextError      of which the model's tokenizer or vocabulary knows nothing
    │   ├── TextTooLongError             long_text="error" and the text does not fit the model
    │   ├── LabelTooLongError            one label does not fit the model; labels are never cut
    │   └── OptionError                  an option has a value that it cannot have
    ├── ModelError                       the model cannot be used
    │   ├── ModelNotFoundError           no such folder, hub repository or cached file
    │   ├── CheckpointError              the folder is there, but is no usable checkpoint
    │   ├── UnsupportedModelError        a layout, flag or backbone that we, or the installed packages, cannot run
    │   ├── NonFiniteError               weights or scores are NaN or infinite
    │   ├── DeviceMemoryError            one pass by itself does not fit into the device's memory
    │   └── NotPicklableError (pickle.PicklingError)  a scorer without a source to load it from
    ├── ServiceError                     a service did not answer, or refused
    └── MissingExtraError (ImportError)  an optional part of the package is not installed

Each message says what was expected, what came, and what to do about it.
"""

from pickle import PicklingError


class GLiClassRerankError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(GLiClassRerankError, ValueError):
    """What the caller passed cannot be scored."""


class InvalidTextError(InputError):
    """A text, query, passage or label is not a string, is empty, or holds characters no tokenizer can read."""


class UnreadableTextError(InvalidTextError):
    """The model's tokenizer leaves nothing of a text or label, or its vocabulary knows (almost) nothing of it.

    Attributes:
        place: where it stands, "passage 3".
        text: all of it.
        reason: why it cannot be read.
    """

    def __init__(self, place: str, text: str, reason: str) -> None:
        super().__init__(place, text, reason)
        self.place, self.text, self.reason = place, text, reason

    def __str__(self) -> str:
        return f"{self.place}: {self.text[:40]!r} cannot be read: {self.reason}"


class TextTooLongError(InputError):
    """A text does not fit the model and the caller asked for an error (``long_text="error"``)."""


class LabelTooLongError(InputError):
    """A label, or prompt and examples together, leave no room for the text. Labels are never cut."""


class OptionError(InputError):
    """An option has a value that it cannot have."""


class ModelError(GLiClassRerankError):
    """The model cannot be used."""


class ModelNotFoundError(ModelError):
    """There is no such folder, hub repository or cached file."""


class CheckpointError(ModelError):
    """The folder exists, but what is in it is no usable checkpoint."""


class UnsupportedModelError(ModelError):
    """The checkpoint has a layout, flag or backbone that this package, or an installed one below it, cannot run."""


class NonFiniteError(ModelError):
    """The model's weights or scores are NaN or infinite."""


class DeviceMemoryError(ModelError):
    """One pass by itself does not fit into the free memory of the device; whatever can be divided was divided."""


class NotPicklableError(ModelError, PicklingError):
    """The scorer was built from objects in memory, so no pickle can say how to load it again."""


class ServiceError(GLiClassRerankError):
    """A service did not answer, refused, or answered what cannot be understood. ``status``: its HTTP status, if any."""

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
