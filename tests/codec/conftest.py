"""Writing through to the disk is for power cuts, and takes minutes where others use the disk: the tests do without."""

from tests.data.conftest import synced  # noqa: F401
