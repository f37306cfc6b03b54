"""The one exception that people are meant to read."""


class SuffuseError(Exception):
    """A problem the user can mend: the message is one line that names the thing and the way out.

    The command line prints it without a traceback and leaves with exit status 2.
    """
