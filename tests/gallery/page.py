"""What tests of a gallery share: two axes, and how its page is looked at."""

WEIGHT, TOWARD = "operators.interpolate.weight", "operators.interpolate.toward"
ONE = f"#unedited=none&role.{TOWARD}=page&role.{WEIGHT}=columns&role.seed=rows"  # a page for each target, and no more
WEIGHTS, SEEDS = [0, 0.25, 0.5, 0.75, 1], [0, 1, 2]


def job_of(page, line: int = 0, column: int = 0) -> str:
    """Which picture a place of the grid shows, as `job/file`."""
    return page.locator(f'[data-place="{line},{column}"] img').get_attribute("src").removeprefix("../")


def until(page, condition: str) -> None:
    """Wait for a condition without `eval`, which the page's policy forbids."""
    page.evaluate(
        f"async () => {{ const began = performance.now(); while (!({condition})) {{"
        "  if (performance.now() - began > 8000) throw new Error('this did not come true');"
        "  await new Promise(requestAnimationFrame); } }"
    )


def texts(page, selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()
