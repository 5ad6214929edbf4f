"""What all sections of the settings share: unknown keys are mistakes, values never change, secrets stay out of errors."""

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


def no_truth_value(cls: type[BaseModel], value: object, info: ValidationInfo) -> object:
    """pydantic reads `true` as the number 1: a port, a size or a time that nobody meant."""
    if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
        raise ValueError("true and false are no values here")
    return value


class Section(BaseModel):
    """A section of the configuration file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    _truth = field_validator("*", mode="before")(no_truth_value)
