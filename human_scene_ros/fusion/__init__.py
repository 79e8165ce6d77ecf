"""People seen by several cameras become one person each: tracking per view, association, averaging, calibration."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
