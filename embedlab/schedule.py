"""Settings that change while a picture is made: a value for each call of the denoiser.

Wherever a cell has a setting (of an operator, `guidance.scale`, `guidance.negative`, `encoder.skip`, the prompt itself)
it may have a `Switch`, a `Ramp` or an `Alternate` instead; an operator may stand in a `During`. `resolve` gives
the setting of a moment. The clocks:

step: the step of the schedule, from 0; a second-order scheduler (Heun) calls twice a step and sees one value in both.
fraction: the share of steps done before this one, 0 up to but without 1.
timestep, sigma: the noise level of the call itself; both fall, from the training schedule's top to 0.
a1111: the rule of AUTOMATIC1111's prompt editing, where a value ending at step n is still used by call n.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args

from embedlab.arguments import plain
from embedlab.checks import in_choices, is_list, is_number, whole_number
from embedlab.display import Html, Lane, Shown, block, timeline
from embedlab.display import curves as drawn
from embedlab.errors import ConfigError, brief, check_kind, listed

Clock = Literal["step", "fraction", "timestep", "sigma", "a1111"]
CLOCKS: tuple[Clock, ...] = get_args(Clock)
FALLING = ("timestep", "sigma")
SHAPES = ("linear", "cosine")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Moment(Shown):
    """One call of the denoiser: its number, the step that it belongs to, of how many, and its noise level.

    `timestep` is the model's, `sigma` the noise level as a ratio to the picture's, and `moments(scheduler)` gives
    those of a scheduler.

    >>> Moment(call=2, step=2, steps=4, timestep=499.0, sigma=1.5).fraction
    0.5
    """

    call: int
    step: int
    steps: int
    timestep: float
    sigma: float
    calls: int = 0  # how many there would be without img2img's late start; a second-order scheduler counts two a step
    top: float = 1000  # how many timesteps the training schedule has

    @property
    def fraction(self) -> float:
        return self.step / self.steps

    def tell(self, clock: Clock) -> float:
        """What a clock shows."""
        return self.call if clock == "a1111" else getattr(self, clock)


class Schedule(Shown, ABC, Generic[T_co]):
    """What answers with another value (a T, or a schedule of them) at another moment."""

    clock: Clock

    @property
    def words(self) -> tuple[str, ...]:
        """The words that the operators within are about, for scores."""
        within = [self.operator] if isinstance(self, During) else getattr(self, "values", ())
        return tuple(word for value in within for word in getattr(value, "words", ()))

    def _repr_html_(self) -> str:
        return block(type(self).__name__, self.drawing(), note=" ".join(str(self).split())[:200])

    def drawing(self) -> Html:
        """What it answers with when, drawn."""
        return Html()

    @abstractmethod
    def __call__(self, moment: Moment) -> Setting[T_co]: ...

    @abstractmethod
    def out_of_range(self, moment: Moment) -> str | None:
        """Why this does not fit a schedule of so many steps; None when it does."""


Setting: TypeAlias = T | Schedule[T]  # what a field takes that may change over time: a value, or a schedule of values


def value_of(setting: Setting[T]) -> T:
    """A setting in which nothing changes any more: `resolve` has put its value there. ConfigError for a schedule.

    >>> value_of(0.5)
    0.5
    """
    if isinstance(setting, Schedule):
        raise ConfigError(f"{setting} changes over time; `resolve(…, moment)` gives the value of a moment.")
    return setting


@dataclass(frozen=True)
class Switch(Schedule[T_co]):
    """One value after another: `values[k]` until the clock reaches `at[k]`, then the next; one `at` fewer than values.

    `at` 0 (of step or fraction) skips what comes before, the last step or fraction 1 is never reached: both ends of a
    sweep are the plain settings.

    >>> turn = Switch(["cat", "dog"], at=0.5)
    >>> [turn(Moment(call=s, step=s, steps=4, timestep=0, sigma=0, calls=4)) for s in range(4)]
    ['cat', 'cat', 'dog', 'dog']
    """

    values: Sequence[Setting[T_co]]
    at: float | Sequence[float]
    clock: Clock = "fraction"

    def __post_init__(self) -> None:
        settle(self)
        if len(self.values) != len(self.times) + 1:
            raise ConfigError(
                f"a switch of {len(self.values)} values needs {len(self.values) - 1} times; at is {listed(self.times)}."
            )

    @property
    def times(self) -> Sequence[float]:
        """What the clock shows where a value gives way to the next."""
        return self.at if isinstance(self.at, tuple) else (self.at,)

    def __str__(self) -> str:
        parts = [f"{format_number(v)} until {t:g}" for v, t in zip(self.values[:-1], self.times, strict=True)]
        return f"({', '.join(parts)}, then {format_number(self.values[-1])})"

    def __call__(self, moment: Moment) -> Setting[T_co]:
        if self.clock == "a1111":
            ends = [end_of(at, moment.calls) for at in self.times]
            passed = sum(moment.call > end or end < 1 for end in ends)
        elif self.clock in FALLING:
            passed = sum(moment.tell(self.clock) <= at for at in self.times)
        else:
            passed = sum(moment.tell(self.clock) >= at - 1e-9 for at in self.times)
        return self.values[passed]

    def drawing(self) -> Html:
        """A box for each value."""
        return boxes(list(map(format_number, self.values)), self.times, self.clock)

    def out_of_range(self, moment: Moment) -> str | None:
        return beyond(self.times, self.clock, moment)


@dataclass(frozen=True)
class Ramp(Schedule[float]):
    """Numbers between points: `values[k]` when the clock shows `at[k]`, between them a line (or half a cosine wave).

    Before the first point and after the last, their values hold.

    >>> ramp = Ramp([0, 1], at=[0, 0.5])
    >>> [ramp(Moment(call=s, step=s, steps=4, timestep=0, sigma=0)) for s in range(4)]
    [0.0, 0.5, 1.0, 1.0]
    """

    values: Sequence[float]
    at: Sequence[float] = (0, 1)
    clock: Clock = "fraction"
    shape: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        settle(self)
        if len(self.values) != len(self.at) or len(self.at) < 2:
            raise ConfigError(
                f"a ramp needs a time for each value, two or more: {len(self.values)} values, at {listed(self.at)}."
            )
        if wrong := [v for v in self.values if not is_number(v)]:
            raise ConfigError(f"a ramp runs between numbers; {brief(wrong[0])} is none (use a Switch).")
        if self.clock == "a1111":
            raise ConfigError("A1111 has no ramps; choose the clock step, fraction, timestep or sigma.")
        in_choices(self.shape, "shape", SHAPES, ConfigError)

    def __str__(self) -> str:
        values = " to ".join(format_number(value) for value in self.values)
        return f"({values} over {self.clock} {format_number(self.at[0])} to {self.at[-1]:g})"

    def __call__(self, moment: Moment) -> float:
        now, times, values = moment.tell(self.clock), list(self.at), [float(v) for v in self.values]
        if self.clock in FALLING:
            now, times = -now, [-t for t in times]
        if now <= times[0]:
            return values[0]
        for (t0, v0), (t1, v1) in zip(
            zip(times, values, strict=True), list(zip(times, values, strict=True))[1:], strict=False
        ):
            if now < t1:
                share = (now - t0) / (t1 - t0)
                share = share if self.shape == "linear" else (1 - math.cos(math.pi * share)) / 2
                return v0 + (v1 - v0) * share
        return values[-1]

    def drawing(self) -> Html:
        """The curve, from the first time that its clock shows to the last."""
        begin, end = ends_of(self.at, self.clock)
        shown = [begin + (end - begin) * n / 60 for n in range(61)]
        line = [(float(n), self(at_clock(self.clock, now))) for n, now in enumerate(shown)]
        return drawn({"value": line}, self.clock, "value", (begin, end))

    def out_of_range(self, moment: Moment) -> str | None:
        return beyond(self.at, self.clock, moment)


@dataclass(frozen=True)
class Alternate(Schedule[T_co]):
    """The values in turn, `every` so many steps; with clock `a1111`, as `[a|b]` does there: the first one twice.

    >>> turns = Alternate(["cat", "dog"])
    >>> [turns(Moment(call=s, step=s, steps=3, timestep=0, sigma=0)) for s in range(3)]
    ['cat', 'dog', 'cat']
    """

    values: Sequence[Setting[T_co]]
    every: int = 1
    clock: Literal["step", "a1111"] = "step"

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", plain(self.values, arrays=False))
        if not is_list(self.values) or len(self.values) < 2:
            raise ConfigError(f"values is {brief(self.values)}; to alternate, it has to be a list of two or more.")
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "every", whole_number(self.every, "every", ConfigError, least=1, of=" of steps"))
        in_choices(self.clock, "to alternate, the clock", ("step", "a1111"), ConfigError)

    def __str__(self) -> str:
        turns = " | ".join(format_number(v) for v in self.values)
        return f"({turns})" if self.every == 1 else f"({turns}, {self.every} steps each)"

    def __call__(self, moment: Moment) -> Setting[T_co]:
        turn = moment.step if self.clock == "step" else max(moment.call, 1) - 1
        return self.values[turn // self.every % len(self.values)]

    def drawing(self) -> Html:
        """A box for each of the first turns."""
        turns = min(24, len(self.values) * max(2, 8 // len(self.values)))
        names = [format_number(self.values[n % len(self.values)]) for n in range(turns)]
        lanes = [Lane(n / turns, (n + 1) / turns, name) for n, name in enumerate(names)]
        return timeline(lanes, "step 0", f"step {turns * self.every}, and so on")

    def out_of_range(self, moment: Moment) -> str | None:
        return None


@dataclass(frozen=True)
class During(Schedule[Any]):
    """An operator that works from `begin` on until before `end`, and not at all outside.

    >>> from embedlab import Scale
    >>> louder = During(Scale("cat", 2), begin=0.5)
    >>> [louder(Moment(call=s, step=s, steps=2, timestep=0, sigma=0)) is not None for s in range(2)]
    [False, True]
    """

    operator: Callable[..., Any]
    begin: float | None = None
    end: float | None = None
    clock: Clock = "fraction"

    def __post_init__(self) -> None:
        if not callable(self.operator) or isinstance(self.operator, type):
            raise ConfigError(f"operator is {brief(self.operator)}; it has to be an operator.")
        times = [t for t in (self.begin, self.end) if t is not None]
        if not times:
            raise ConfigError("begin or end has to be given; an operator that always works needs no During.")
        check_times(times, self.clock)

    @property
    def stage(self) -> Any:
        """The stage of the operator within."""
        return getattr(self.operator, "stage", "token")

    def __str__(self) -> str:
        from_ = "" if self.begin is None else f" from {self.begin:g}"
        return f"{self.operator}{from_}" + ("" if self.end is None else f" until {self.end:g}")

    def __call__(self, moment: Moment) -> Any:
        begun = self.begin is None or Switch((False, True), self.begin, self.clock)(moment)
        over = self.end is not None and Switch((False, True), self.end, self.clock)(moment)
        return resolve(self.operator, moment) if begun and not over else None

    def drawing(self) -> Html:
        """When it works, and when not."""
        times = [t for t in (self.begin, self.end) if t is not None]
        works = format_number(self.operator)
        names = [*([""] if self.begin is not None else []), works, *([""] if self.end is not None else [])]
        return boxes(names, times, self.clock)

    def out_of_range(self, moment: Moment) -> str | None:
        return beyond(tuple(t for t in (self.begin, self.end) if t is not None), self.clock, moment)


def ends_of(times: Sequence[float], clock: Clock) -> tuple[float, float]:
    """What a clock shows at the first moment and at the last, as far as times tell.

    >>> ends_of([0.5], "fraction"), ends_of([10], "step"), ends_of([600], "timestep")
    ((0, 1), (0, 13), (1000, 0))
    """
    most = max(times, default=1)
    if clock in FALLING:
        return max(1000 if clock == "timestep" else 1.5 * most, most), 0
    shares = clock == "fraction" or (clock == "a1111" and any(isinstance(t, float) for t in times))
    return 0, 1 if shares and most <= 1 else math.ceil(1.25 * most) or 1


def at_clock(clock: Clock, now: float) -> Moment:
    """A moment at which a clock shows a number."""
    whole = 1 << 20
    if clock == "fraction":
        return Moment(0, round(now * whole), whole, 0.0, 0.0)
    number: Any = now  # between two steps there is no moment, but a line
    return Moment(number, number, whole, now, now)


def boxes(names: Sequence[str], times: Sequence[float], clock: Clock) -> Html:
    """Names one after the other, a time between two; the first moment is on the left."""
    begin, end = ends_of(times, clock)
    marks = [0.0, *(min(max((t - begin) / (end - begin), 0), 1) for t in times), 1.0]
    lanes = [Lane(marks[n], marks[n + 1], name) for n, name in enumerate(names)]
    said = ", ".join(f"{t:g}" for t in times)
    return timeline(lanes, f"{clock} {begin:g}, then at {said}", f"{end:g}")


def settle(curve: Switch[Any] | Ramp) -> None:
    """Lists become tuples, one time a tuple of one; what is no list of values and no rising times is refused."""
    object.__setattr__(curve, "values", plain(curve.values, arrays=isinstance(curve, Ramp)))
    object.__setattr__(curve, "at", plain(curve.at))
    if not is_list(curve.values) or len(curve.values) < 2:
        raise ConfigError(f"values is {brief(curve.values)}; it has to be a list of two or more.")
    times = tuple(curve.at) if is_list(curve.at) else (curve.at,)
    check_times(times, curve.clock)
    object.__setattr__(curve, "values", tuple(curve.values))
    object.__setattr__(curve, "at", times)


def check_times(times: Sequence[Any], clock: str) -> None:
    """Refuse an unknown clock, and times that are no numbers, below 0 or out of order."""
    in_choices(clock, "clock", CLOCKS, ConfigError)
    if wrong := [t for t in times if not is_number(t) or t < 0]:
        raise ConfigError(f"{brief(wrong[0])} is no time; on the clock {clock} it has to be a number, 0 or more.")
    order = sorted(set(times), reverse=clock in FALLING)
    if list(times) != order:
        way = "fall" if clock in FALLING else "rise"
        raise ConfigError(f"the times {listed(times)} are out of order; on the clock {clock} they have to {way}.")


def end_of(at: float, calls: int) -> int:
    """The call at which A1111 ends an entry: a number with a point is a share of the steps, one without is a step."""
    return min(int(at * calls) if isinstance(at, float) else int(at), calls)


def beyond(times: Sequence[float], clock: Clock, moment: Moment) -> str | None:
    """Why a time lies past the end of a schedule; A1111 clips those."""
    if clock == "a1111":
        ends = [end_of(t, moment.calls) for t in times]
        if ends != sorted(ends):
            return f"the times {listed(times)} end at calls {listed(ends)} of {moment.calls}, out of order"
        return None
    last = {"step": moment.steps, "fraction": 1, "timestep": moment.top}.get(clock)
    if last is not None and times and max(times) > last:
        return f"{clock} {max(times):g} is past the end; there are {moment.steps} steps, so it is {last:g} at the most"
    return None


def format_number(value: Any) -> str:
    """A setting in a label: a number in short, anything else as it is; figures that change over time as such."""
    if value is None:
        return "nothing"
    if isinstance(value, Schedule | str):
        return str(value)
    try:
        return f"{float(getattr(value, 'detach', lambda: value)()):g}"
    except (TypeError, ValueError, RuntimeError, OverflowError):
        kind: Any = type(value)
        return brief(value) if (kind.__str__, kind.__repr__) == (object.__str__, object.__repr__) else str(value)


def varies(value: Any) -> bool:
    """Whether a setting, or any within it, changes over time."""
    return any(isinstance(part, Schedule) for part in within(value))


def curves(value: Any) -> list[Schedule[Any]]:
    """Everything within a setting that changes over time, outermost first."""
    return [part for part in within(value) if isinstance(part, Schedule)]


def within(value: Any, inside: tuple[int, ...] = ()) -> Iterator[Any]:
    """A setting and everything in it: the fields of dataclasses, what mappings and lists hold, outermost first.

    >>> list(within([1, {"a": (2,)}]))
    [[1, {'a': (2,)}], 1, {'a': (2,)}, (2,), 2]
    """
    yield value
    if id(value) in inside:  # it contains itself
        return
    inner = (*inside, id(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from within(getattr(value, field.name), inner)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from within(part, inner)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from within(part, inner)


def resolve(value: Any, moment: Moment) -> Any:
    """The plain setting of a moment. Dataclasses are made anew, and so check what they were given.

    Operators that do not work at this moment leave their list.

    >>> resolve({"weight": Ramp([0, 1])}, Moment(call=1, step=1, steps=4, timestep=0, sigma=0))
    {'weight': 0.25}
    """
    check_kind(moment, Moment, "moment", "moments(scheduler) lists those of a cell")
    if isinstance(value, Schedule):
        return resolve(value(moment), moment)
    if not varies(value):
        return value
    if isinstance(value, Mapping):
        return {key: resolve(v, moment) for key, v in value.items()}
    if isinstance(value, list | tuple):
        whole = [resolve(v, moment) for v in value]
        return type(value)(new for old, new in zip(value, whole, strict=True) if not isinstance(old, During) or new)
    fields = {f.name: resolve(getattr(value, f.name), moment) for f in dataclasses.fields(value) if f.init}
    return dataclasses.replace(value, **fields)
