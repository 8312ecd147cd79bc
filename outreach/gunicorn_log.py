"""gunicorn's own lines in the form of all others: `gunicorn --logger-class outreach.gunicorn_log.Logger`."""

import logging.config

from gunicorn import glogging
from gunicorn.config import Config

from outreach.settings import LOGGING


class Logger(glogging.Logger):
    """Its head writes lines before any worker has loaded Django."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        logging.config.dictConfig(LOGGING)
