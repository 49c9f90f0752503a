"""`bytepixels verify`: check samplers, variational bound and seeds against exact results.

verify() runs all of it and returns a Check for each row.
"""

from .check import Check as Check
from .suite import verify as verify
