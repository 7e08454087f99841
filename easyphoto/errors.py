"""Every error a person can meet, as one tree.

EasyPhotoError
  InputError            what was handed in cannot be used                    exit 2, HTTP 422
    PhotoError            a picture cannot be read or used
    NameRefused           a person's name cannot be used
    TemplateError         a template has no face that can be worked on
    LoraError             a LoRA file is broken or belongs to another model
    SpecError             a setting is out of its range
  NotFound              what was named does not exist                        exit 3, HTTP 404
  Conflict              the same thing is being done already                 exit 4, HTTP 409
  ToolMissing           a package, model or backend is not installed         exit 5, HTTP 503
  StorageError          the disk is full or cannot be written                exit 6, HTTP 507
  JobFailed             a worker process ended without its result            exit 7, HTTP 500
  Cancelled             the person asked to stop                             exit 130, HTTP 499

Each message is one sentence or two: what happened, why, and what to do.
"""

from __future__ import annotations


class EasyPhotoError(Exception):
    """Root of the tree; carries a stable code for programs and an exit status for the command line."""

    code = "error"
    exit_status = 1
    http_status = 500


class InputError(EasyPhotoError):
    """Something handed in cannot be used."""

    code = "bad_input"
    exit_status = 2
    http_status = 422


class PhotoError(InputError):
    """A picture cannot be read or used."""

    code = "bad_photo"


class NameRefused(InputError):
    """A person's name cannot be used."""

    code = "bad_name"


class TemplateError(InputError):
    """A template has no face that can be worked on."""

    code = "bad_template"


class LoraError(InputError):
    """A LoRA file is broken or belongs to another model."""

    code = "bad_lora"


class SpecError(InputError):
    """A setting is out of its range."""

    code = "bad_setting"


class NotFound(EasyPhotoError):
    """What was named does not exist."""

    code = "not_found"
    exit_status = 3
    http_status = 404


class Conflict(EasyPhotoError):
    """The same thing is being done already."""

    code = "conflict"
    exit_status = 4
    http_status = 409


class ToolMissing(EasyPhotoError):
    """A package, model or backend is not installed."""

    code = "tool_missing"
    exit_status = 5
    http_status = 503


class StorageError(EasyPhotoError):
    """The disk is full or cannot be written."""

    code = "storage"
    exit_status = 6
    http_status = 507


class JobFailed(EasyPhotoError):
    """A worker process ended without its result."""

    code = "job_failed"
    exit_status = 7


class Cancelled(EasyPhotoError):
    """The person asked to stop."""

    code = "cancelled"
    exit_status = 130
    http_status = 499
