"""`bytepixels verify`: samplers, variational bound and seeds against laws that are known exactly.

verify() runs all of it and returns a Check for each row.
"""

from .check import Check as Check
from .suite import verify as verify
