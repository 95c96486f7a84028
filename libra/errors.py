"""The errors that a user can cause and can mend."""


class InputError(ValueError):
    """Something that was passed in cannot be used; the message says what to do instead.

    The page shows the message as it is, the command line prints it in one line and exits with 2.
    """


class MediaWarning(UserWarning):
    """A picture or a video of which only a part is looked at."""


class ShortageError(InputError):
    """A model has run out of memory at work; the message says what needs less."""
