"""From the slider to four pictures: how long until the first ones are there, and until all is?

    python benchmarks/play.py [MOVES] [SETTINGS …]

Starts the server of `embedlab play` with the default model (or what SETTINGS say), eager and with OpenVINO, and drives
it by its own protocol, as the page does: a weight is moved, and the answer read line by line. Prints the median
seconds, of so many moves (15), from sending a state to its first pictures (6 steps), to those of all steps, and to the
end of the answer, scores and all. The two take turns, and the unedited pictures are there, as they are while one drags.
"""

import argparse
import json
import statistics
import sys
import threading
import time
import urllib.request

from embedlab.cli.commands import play

ENGINES = ("eager", "openvino")


def main() -> None:
    moves = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    words = sys.argv[2:]
    servers = {engine: started([*words, f"engine={engine}", "tracker=silent"]) for engine in ENGINES}
    took: dict[str, list[tuple[float, float, float]]] = {engine: [] for engine in ENGINES}
    try:
        for n in range(moves + 2):
            for engine, (server, _) in servers.items():
                seconds = moved(server, 0.01 + 0.98 * n / (moves + 1))
                if n > 1:  # the first two draw the unedited pictures, and warm up
                    took[engine].append(seconds)
    finally:
        for server, thread in servers.values():
            server.stop()
            thread.join()
    print(f"medians of {moves} moves, seconds:")
    for engine, seconds in took.items():
        first, whole, over = (statistics.median(column) for column in zip(*seconds, strict=True))
        most = max(column[0] for column in seconds)
        print(f"  {engine:9} first pictures {first:.2f} (slowest {most:.2f}), all steps {whole:.2f}, scored {over:.2f}")


def started(words: list[str]) -> tuple:
    """A server of the page on a thread of its own."""
    chosen = argparse.Namespace(port=0, preview=play.FEW, no_browser=True)
    server = play.opened(play.composed(words), words, chosen)
    ready = threading.Event()
    thread = threading.Thread(target=server.run, args=(ready.set,))
    thread.start()
    ready.wait()
    return server, thread


def moved(server, weight: float) -> tuple[float, float, float]:
    """Seconds until the first pictures of a state, the edited ones with all steps, and the end of the answer."""
    settings = {"rows": "puppy", "toward": "skunk", "weight": weight}
    state = {
        "prompt": "A picture of a puppy",
        "edits": [{"operator": "interpolate", "settings": settings}],
        "seeds": [0, 1, 2, 3],
    }
    headers = {"X-Page": "benchmark", "Origin": f"http://127.0.0.1:{server.port}"}
    request = urllib.request.Request(f"{server.address}draw", json.dumps(state).encode(), headers)
    first = whole = 0.0
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=600) as answer:
        for line in answer:
            message = json.loads(line)
            if message["kind"] == "fault":
                raise SystemExit(message["text"])
            if message["kind"] == "pictures":
                first = first or time.perf_counter() - began
                if (message["which"], message["stage"]) == ("edited", "all"):
                    whole = time.perf_counter() - began
    return first, whole, time.perf_counter() - began


if __name__ == "__main__":
    main()
