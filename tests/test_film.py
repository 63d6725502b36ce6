"""A film keeps its ends, its order and its time; equal steps are equal."""

import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from test_engines import Same

from embedlab import Job, Store, engines, images, run_jobs
from embedlab.cli.commands import film as command
from embedlab.errors import ConfigError, PictureError
from embedlab.sweep.cells import cell_of
from embedlab.sweep.config import complete, conf_dir, part_of
from embedlab.view.film.pace import chord_lengths, durations, evenness, paced, perceptual_weights, ticks
from embedlab.view.film.render import Film, Renderer, render_films
from embedlab.view.film.tracks import axis_along, read_tracks, tracks_along
from embedlab.view.film.video import write_gif, write_mp4
from embedlab.view.layout import results_of

WEIGHT = "operators.interpolate.weight"
numbers = st.floats(0, 10, allow_subnormal=False)


# ── laws of pace ──────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.floats(0.01, 10), st.integers(2, 9), st.integers(2, 40))
def test_equal_distances_give_equal_weights(distance, known, frames):
    found = perceptual_weights([distance] * (known - 1), np.linspace(-1, 3, known), frames)
    np.testing.assert_allclose(found, np.linspace(-1, 3, frames), atol=1e-9)


@given(st.lists(st.tuples(numbers, st.floats(0.001, 5)), min_size=1, max_size=12), st.integers(2, 40))
def test_weights_rise_and_keep_their_ends_to_the_bit(gaps, frames):
    weights = np.cumsum([0.1, *(step for _, step in gaps)])
    found = perceptual_weights([distance for distance, _ in gaps], weights, frames)
    assert len(found) == frames
    assert (found[0], found[-1]) == (weights[0], weights[-1])
    assert (np.diff(found) >= 0).all()


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=12), st.integers(2, 40))
def test_the_same_distance_lies_between_any_two_neighbours(distances, frames):
    weights = np.arange(len(distances) + 1.0)
    found = perceptual_weights(distances, weights, frames)
    steps = np.diff(np.interp(found, weights, np.concatenate([[0], np.cumsum(distances)])))
    np.testing.assert_allclose(steps, sum(distances) / (frames - 1), rtol=1e-6, atol=1e-9)


def test_where_nothing_is_seen_the_steps_are_those_of_the_setting():
    assert perceptual_weights([0, 0], [0, 0.5, 2], 5).tolist() == [0, 0.5, 1, 1.5, 2]
    assert perceptual_weights([0, 1, 0], [0, 1, 2, 3], 3).tolist() == [0, 1.5, 3]


@pytest.mark.parametrize(
    ("distances", "weights", "frames"),
    [([1], [0], 3), ([1], [0, 1], 1), ([-1], [0, 1], 3), ([1, 1], [0, 1, 1], 3), ([float("nan")], [0, 1], 3)],
)
def test_what_makes_no_path_is_refused(distances, weights, frames):
    with pytest.raises(ConfigError):
        perceptual_weights(distances, weights, frames)


def test_chords_of_a_way_and_of_its_halves_agree_where_cosines_do_not():
    angle = 0.1
    whole, half = 1 - np.cos(angle), 1 - np.cos(angle / 2)
    assert chord_lengths([whole]).sum() == pytest.approx(chord_lengths([half, half]).sum(), rel=1e-3)
    assert whole == pytest.approx(2 * (half + half), rel=1e-2)


@given(st.lists(st.floats(0.001, 3), min_size=1, max_size=30), st.sampled_from([25, 60, 100]))
def test_time_is_kept_and_no_frame_lost(times, rate):
    counts = ticks(times, rate)
    assert min(counts) >= 1
    late = np.cumsum(counts) - np.round(np.cumsum(times) * rate)
    assert (late >= 0).all()
    if min(times) * rate >= 1:
        assert sum(counts) == round(sum(times) * rate)


def test_a_setting_moves_at_a_constant_speed():
    assert durations([0, 1, 2, 3], 8) == [2, 2, 2, 2]
    uneven = durations([0, 0.1, 0.5, 1], 4)
    assert sum(uneven) == pytest.approx(4)
    assert uneven == sorted(uneven)


class Curve:
    """A path without pictures: at each value of the setting a point on the unit circle."""

    def __init__(self, angle, known):
        self.angle, self.values, self.rendered = angle, sorted(known), []

    def render(self, values):
        new = [value for value in values if value not in self.values]
        self.rendered += new
        self.values = sorted({*self.values, *new})

    def measure(self, values):
        return tuple(1 - np.cos(self.angle(b) - self.angle(a)) for a, b in pairwise(values))


CURVES = {
    "a line": lambda w: w,
    "a square": lambda w: 2 * w * w,
    "late": lambda w: w**6,
    "a cliff": lambda w: np.tanh(200 * (w - 0.54)),
    "two cliffs": lambda w: np.tanh(150 * (w - 0.2)) + np.tanh(450 * (w - 0.81)),
}


@pytest.mark.parametrize("curve", CURVES, ids=str)
@pytest.mark.parametrize("frames", [5, 25])
def test_pacing_evens_the_steps_of_any_path(curve, frames):
    path = Curve(CURVES[curve], [0.0, 0.5, 1.0])
    constant, even = paced(path, frames)
    assert evenness(path.measure(even)) <= evenness(path.measure(constant))
    assert evenness(path.measure(even)) < 1.1
    assert even[0] == constant[0] == 0
    assert even[-1] == constant[-1] == 1
    assert len(even) == len(constant) == frames
    assert len(path.rendered) == len(set(path.rendered)) < 8 * frames + 60, "nothing is rendered twice, or without end"


def test_a_jump_stays_a_jump_and_is_told():
    path = Curve(lambda w: float(w > 0.3), [0.0, 1.0])
    _, even = paced(path, 5)
    film = Film(tuple(even), ((),) * 5, path.measure(even))
    largest = film.as_dict()["largest_step"]
    assert largest["from"] <= 0.3 < largest["to"]
    assert film.evenness == pytest.approx(4)


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def colours(count: int, size=(33, 21)) -> list[Image.Image]:
    return [Image.new("RGB", size, (250 * n // count, 40, 255 - 250 * n // count)) for n in range(count)]


def test_a_gif_has_its_frames_times_and_size(tmp_path):
    path = write_gif(colours(7), tmp_path / "a" / "x.gif", [0.25, 0.1, 0.1, 0.055, 0.055, 0.04, 0.4])
    with Image.open(path) as read:
        assert (read.n_frames, read.size, read.info["loop"]) == (7, (33, 21), 0)
        shown = []
        for n in range(7):
            read.seek(n)
            shown.append(read.info["duration"])
            near = np.abs(np.asarray(read.convert("RGB"), dtype=int) - np.asarray(colours(7)[n], dtype=int))
            assert near.max() < 24
    assert sum(shown) == 1000
    assert shown[:3] == [250, 100, 100]
    assert [p.name for p in path.parent.iterdir()] == ["x.gif"], "no temporary file is left"
    with pytest.raises(ConfigError, match="at most 50 pictures a second"):
        write_gif(colours(2), tmp_path / "x.gif", [0.01, 0.01])


def test_an_mp4_has_its_frames_time_and_even_sides(tmp_path):
    times = [0.4, 0.2, 0.4]
    path = write_mp4(colours(3), tmp_path / "x.mp4", times)
    with av.open(str(path)) as read:
        stream = read.streams.video[0]
        assert (stream.width, stream.height, stream.pix_fmt) == (34, 22, "yuv420p")
        assert float(read.duration / av.time_base) == pytest.approx(1, abs=0.01)
        frames = [frame.to_ndarray(format="rgb24") for frame in read.decode(stream)]
    assert len(frames) == 25
    assert [
        int(np.abs(frames[k][10, 10].astype(int) - np.array(colours(3)[n].getpixel((0, 0)))).max()) < 30
        for k, n in ((0, 0), (9, 0), (10, 1), (14, 1), (15, 2), (24, 2))
    ] == [True] * 6
    assert [p.name for p in tmp_path.iterdir()] == ["x.mp4"]


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install 'embedlab\[film\]'"):
        write_mp4(colours(2), tmp_path / "x.mp4", [1, 1])
    assert not list(tmp_path.iterdir())


def test_the_other_encoder_will_do(tmp_path, monkeypatch):
    own = av.Codec

    def lacking(name, mode):
        if name == "libx264":
            raise av.codec.codec.UnknownCodecError(name)
        return own(name, mode)

    monkeypatch.setattr(av, "Codec", lacking)
    path = write_mp4(colours(2), tmp_path / "x.mp4", [0.2, 0.2])
    with av.open(str(path)) as read:
        assert read.streams.video[0].codec_context.name == "mpeg4"
        assert sum(1 for _ in read.decode(video=0)) == 10


# ── a sweep ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """A real sweep of three weights and two seeds."""
    return sweep(tmp_path_factory.mktemp("sweep"), (0, 0.25, 1))


def sweep(folder: Path, weights: tuple[float, ...], *more: str) -> Path:
    """Jobs of the command line, by weight."""
    for job, weight in enumerate(weights):
        words = ["operators=[interpolate]", "operators.interpolate.toward=skunk", f"{WEIGHT}={weight}", "seeds=[0,3]"]
        words += more
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            config = compose("config", [*words, "sampler.steps=2", "tracker=silent", "model.device=cpu"])
        config = complete(config)
        told = OmegaConf.to_container(config, resolve=True)
        source, cell = part_of(config, "model"), cell_of(config)
        overrides = {"operators": ["interpolate"], WEIGHT: weight}
        made = Job(source, cell, (0, 3), folder / str(job), told, name=words[2], number=job, overrides=overrides)
        assert not run_jobs([made], Store(folder / ".cells")).failures
    return folder


def read_gif(path: Path) -> tuple[int, tuple[int, int], list[int]]:
    with Image.open(path) as read:
        times = []
        for n in range(read.n_frames):
            read.seek(n)
            times.append(read.info["duration"])
        return read.n_frames, read.size, times


def test_the_pictures_of_a_sweep_become_a_film(swept, tmp_path, capsys):
    command.main([str(swept), "--seconds", "2", "--to", str(tmp_path)])
    out, err = capsys.readouterr()
    assert out.split() == [str(tmp_path / f"film-weight.{end}") for end in ("gif", "mp4")]
    assert not err
    count, (width, height), times = read_gif(tmp_path / "film-weight.gif")
    assert count == 3
    assert times == [330, 670, 1000], "for 0.25, 0.5 and 0.75 of the way, of two seconds"
    assert width % 2 == height % 2 == 0
    assert width < height, "one picture, and its weight under it"
    command.main([str(swept), "--seconds", "1", "--to", str(tmp_path)])
    assert capsys.readouterr().err == (
        "embedlab: notice: film-weight.gif, film-weight.mp4 of an earlier film were written over; "
        "--to PATH keeps both.\n"
    )


def test_all_seeds_stand_side_by_side(swept, tmp_path):
    command.main([str(swept), "--seed", "all", "--along", "weight", "--to", str(tmp_path)])
    _, (width, height), _ = read_gif(tmp_path / "film-weight.gif")
    assert width > 1.5 * height


def test_frames_in_between_are_drawn_and_paced(swept, tmp_path, capsys):
    command.main([str(swept), "--frames", "5", "--pace", "perceptual", "--seconds", "1", "--to", str(tmp_path)])
    assert "the largest step is" in capsys.readouterr().out
    for pace in ("weight", "perceptual"):
        count, _, times = read_gif(tmp_path / f"film-{pace}.gif")
        assert (count, times) == (5, [200] * 5)
        with av.open(str(tmp_path / f"film-{pace}.mp4")) as read:
            assert sum(1 for _ in read.decode(video=0)) == 25
    told = json.loads((tmp_path / "film.json").read_text())
    assert told["along"] == WEIGHT
    assert told["takes"] == ["seed 0"]
    assert told["weight"]["weights"] == [0, 0.25, 0.5, 0.75, 1]
    weights = told["perceptual"]["weights"]
    assert weights == sorted(weights)
    assert (weights[0], weights[-1]) == (0, 1)
    assert told["perceptual"]["max_over_mean"] <= told["weight"]["max_over_mean"]
    assert told["perceptual"]["max_over_mean"] < 2


def test_one_file_is_written_where_its_name_says_what_it_is(swept, tmp_path, capsys):
    """A name that ends in .gif or .mp4 is that file, and nothing else is written: not a folder of that name."""
    for name in ("film.gif", "new/film.MP4"):
        path = tmp_path / "files" / name
        command.main([str(swept), "--seconds", "1", "--to", str(path)])
        assert capsys.readouterr().out.split() == [str(path)]
        assert [p.name for p in path.parent.iterdir() if p.is_file()] == [path.name]
    assert read_gif(tmp_path / "files" / "film.gif")[0] == 3
    assert b"ftyp" in (tmp_path / "files" / "new" / "film.MP4").read_bytes()[:16]
    both = ["--frames", "5", "--pace", "perceptual", "--seconds", "1"]
    command.main([str(swept), *both, "--to", str(tmp_path / "even.gif")])
    command.main([str(swept), *both, "--to", str(tmp_path / "all")])
    assert (tmp_path / "even.gif").read_bytes() == (tmp_path / "all" / "film-perceptual.gif").read_bytes()
    (tmp_path / "folder.gif").mkdir()
    command.main([str(swept), "--to", str(tmp_path / "folder.gif")])
    assert (tmp_path / "folder.gif" / "film-weight.gif").is_file(), "a folder that is there stays one"


def test_an_mp4_without_pyav_is_refused_before_anything_is_rendered(swept, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("embedlab.view.film.render.render_films", None)
    with pytest.raises(ConfigError, match=r"pip install 'embedlab\[film\]'"):
        command.main([str(swept), "--frames", "900", "--seconds", "60", "--to", str(tmp_path / "film.mp4")])
    assert not list(tmp_path.iterdir())


def test_a_picture_that_is_rendered_anew_is_that_of_the_sweep(swept):
    tracks = read_tracks(swept, seed="all")
    known = render_films(tracks)["weight"]
    between = tracks_along([one for one in results_of(swept) if one.overrides[WEIGHT] != 0.25], WEIGHT, "all")
    anew = render_films(between, frames=5)["weight"]
    assert known.weights[1] == anew.weights[1] == 0.25
    for old, new in zip(known.frames[1], anew.frames[1], strict=True):
        assert np.abs(np.asarray(old, dtype=int) - np.asarray(new, dtype=int)).max() <= 1


def test_frames_in_between_are_made_by_the_engine_that_the_pictures_name(swept, monkeypatch):
    engine = Same()
    monkeypatch.setitem(engines.RECORDED, "eager", engine)
    film = render_films(read_tracks(swept), frames=5, pace="perceptual")
    assert len(film["perceptual"].frames) == 5
    assert [graph.part for graph in engine.graphs] == ["unet", "vae.decoder"], "once for all calls"


def test_a_start_picture_is_found_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Image.effect_noise((128, 128), 90).convert("RGB").save("in.png")
    out = sweep(tmp_path / "out", (0, 1), "start=picture", "start.picture=in.png", "start.strength=0.5", "size=32")
    monkeypatch.chdir(tmp_path)
    renderer = Renderer(read_tracks(out))
    renderer.render([0.5])
    assert renderer.frames[0.5][0].size == (32, 32)
    (tmp_path / "here" / "in.png").unlink()
    with pytest.raises(PictureError, match="the start picture of '.*' is not there any more: 'in.png' and '.*in.png'"):
        renderer.render([0.75])


def synthetic(folder: Path, jobs: list[dict], seeds=(0,)) -> list[dict]:
    """Results of a sweep with grey pictures."""
    for n, overrides in enumerate(jobs):
        rows = [{"seed": seed, "file": f"seed-{seed}.png"} for seed in seeds]
        for row in rows:
            images.save(Image.new("RGB", (16, 16), "grey"), folder / str(n) / row["file"])
        config = {"prompt": "a puppy", "a": {"b": overrides.get("a.b")}, "sampler": {"steps": 4}}
        result = {"status": "done", "label": "x", "prompt": "a puppy", "overrides": overrides}
        result |= {"pictures": rows, "config": config}
        (folder / str(n) / "result.json").write_text(json.dumps(result))
    return results_of(folder)


def test_the_axis_is_the_only_one_of_numbers_or_named(tmp_path):
    two = synthetic(tmp_path / "two", [{"a.b": n, "c.d": m, "e": e} for n in (1, 2) for m in (0.1, 0.2) for e in "xy"])
    with pytest.raises(ConfigError, match=r"a\.b, c\.d take several numbers; choose: --along b\."):
        axis_along(two)
    assert axis_along(two, "d") == "c.d"
    with pytest.raises(ConfigError, match="a film runs along numbers; e is x, y"):
        axis_along(two, "e")
    with pytest.raises(ConfigError, match="no axis 'f'"):
        axis_along(two, "f")
    none = synthetic(tmp_path / "none", [{"e": "x"}, {"e": "y"}, {"a.b": True, "e": "x"}])
    with pytest.raises(ConfigError, match="no setting of this sweep takes several numbers"):
        axis_along(none)
    assert [track.label for track in tracks_along(two, "a.b").tracks] == [
        f"d {m}, e {e}, seed 0" for m in ("0.1", "0.2") for e in "xy"
    ]


def test_weights_without_a_picture_are_left_out(tmp_path, capsys):
    synthetic(tmp_path, [{"a.b": n} for n in (0, 1, 2)])
    path = tmp_path / "1" / "result.json"
    path.write_text(path.read_text().replace('"file": "seed-0.png"', '"error": "NaN"'))
    command.main([str(tmp_path)])
    assert "notice: left out b 1: a picture is missing there." in capsys.readouterr().out
    assert read_gif(tmp_path / "film-weight.gif")[0] == 2
    (tmp_path / "2" / "result.json").unlink()
    with pytest.raises(ConfigError, match="no setting of this sweep takes several numbers|two values of the setting"):
        command.main([str(tmp_path)])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seed", "7"], "no seed 7; it has 0"),
        (["--seed", "one"], "--seed is 'one'"),
        (["--frames", "1"], "--frames is 1"),
        (["--seconds", "0"], "--seconds is 0"),
        (["--frames", "100", "--seconds", "1"], "more than the 50 a second"),
        (["--frames", "9"], "changes sampler elsewhere"),
    ],
)
def test_what_cannot_be_filmed_is_one_line(tmp_path, words, said):
    synthetic(tmp_path, [{"a.b": n} for n in (0, 1)])
    path = tmp_path / "1" / "result.json"
    path.write_text(path.read_text().replace('"steps": 4', '"steps": 5'))
    with pytest.raises(ConfigError, match=said):
        command.main([str(tmp_path), *words])


def test_a_config_of_a_sweep_is_checked_before_it_is_made(swept, tmp_path):
    marker = tmp_path / "marker"
    folder = shutil.copytree(swept, tmp_path / "sweep")
    for path in folder.glob("*/result.json"):
        result = json.loads(path.read_text())
        result["config"]["encoder"] = {"_target_": "os.system", "command": f"touch {marker}"}
        path.write_text(json.dumps(result))
    with pytest.raises(ConfigError, match="none of embedlab's"):
        render_films(read_tracks(folder), frames=3)
    assert not marker.exists()
