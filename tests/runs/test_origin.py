"""Where a run finds its images again, from any folder and after a move."""

import os

import pytest

from bytepixels.runs.origin import find_source, kept


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with images and a run's folder, entered."""
    (tmp_path / "old/images").mkdir(parents=True)
    (tmp_path / "old/runs/first").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def test_a_relative_source_is_kept_absolute(project):
    data = kept("images", project / "runs/first")
    assert data["source"] == str(project / "images")
    os.chdir("/")
    assert find_source(data, project / "runs/first") == str(project / "images")


def test_a_known_name_and_a_pattern_of_shards(project):
    assert kept("digits", project) == {"source": "digits"}
    assert find_source({"source": "digits"}, project) == "digits"
    (project / "s-0.tar").touch()
    data = kept("s-{0..3}.tar", project / "runs/first")
    os.chdir("/")
    assert find_source(data, project / "runs/first") == str(project / "s-{0..3}.tar")


def test_a_run_that_moved_with_its_images_finds_them_beside_it(project, tmp_path):
    data = kept("images", project / "runs/first")
    os.chdir(tmp_path)
    project.rename(tmp_path / "new")
    assert find_source(data, tmp_path / "new/runs/first") == str(tmp_path / "new/images")
    assert find_source(data, tmp_path / "elsewhere") is None


def test_images_that_are_gone_are_asked_for_with_the_places_looked_at(tmp_path):
    from bytepixels.config.run import Config
    from bytepixels.errors import InputError
    from bytepixels.runs.image_sets import source_of
    from bytepixels.runs.run_directory import Run

    run = Run(tmp_path / "runs/first", Config(), {"source": str(tmp_path / "gone"), "source_beside": "../images"})
    with pytest.raises(InputError, match=r"not at .*/gone nor at .*/runs/images; give them with --source PATH"):
        source_of(run)
