import threading

import pytest

from unit.training.run_dir import BackgroundWriter


def test_tasks_run_in_the_background_one_after_the_other() -> None:
    background, run, done = BackgroundWriter(), threading.Event(), []
    background.start(lambda: done.append(run.wait(10)))
    background.check()
    assert done == []
    run.set()
    background.start(lambda: done.append("second"))
    background.finish()
    assert done == [True, "second"]
    background.finish()


@pytest.mark.parametrize("ask", ["check", "finish", "start"])
def test_an_exception_is_raised_once_by_the_next_call(ask: str) -> None:
    def fail() -> None:
        raise ValueError("full")

    background, reached = BackgroundWriter(), []
    background.start(fail)
    assert background._task is not None
    background._task.exception()  # wait
    with pytest.raises(ValueError, match="full"):
        getattr(background, ask)(*([lambda: reached.append(1)] if ask == "start" else []))
    background.finish()
    assert reached == []
