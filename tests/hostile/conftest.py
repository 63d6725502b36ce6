import pytest
from trials import Forks


@pytest.fixture(scope="session")
def forks(folders):
    """The process that runs trials, with the small model in memory."""
    made = Forks(folders["sd1"])
    yield made
    made.close()
