"""The time of day from the system."""

import datetime as dt


class SystemClock:
    """Implements the port `Clock`."""

    def now(self) -> dt.datetime:
        """See the port."""
        return dt.datetime.now(dt.UTC)
