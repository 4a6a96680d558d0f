"""The benchmark's arithmetic: which picture ends the wait for which move."""

from .bench_ui import latencies


def move(at: float, value: float) -> dict:
    return {"at": at, "input": at - 1, "value": ["z0", value]}


def draw(put: float, value: float, changed: bool = True) -> dict:
    return {"put": put, "shown": put + 10, "values": {"z0": value}, "text": None, "changed": changed}


def shown(moves: list[dict], draws: list[dict]) -> list[float | None]:
    return [found.get("shown") for found in latencies(moves, draws)]


def test_each_move_waits_for_its_own_picture():
    moves = [move(100, 1.0), move(160, 2.0)]
    assert shown(moves, [draw(130, 1.0), draw(200, 2.0)]) == [40, 50]
    assert latencies(moves[:1], [draw(130, 1.0)]) == [{"shown": 40, "input": 41, "drawn": 30}]


def test_a_late_picture_of_an_earlier_move_ends_no_later_one():
    assert shown([move(100, 1.0), move(160, 2.0)], [draw(170, 1.0), draw(300, 2.0)]) == [80, 150]


def test_a_value_that_is_never_drawn_waits_for_a_later_picture():
    assert shown([move(100, 1.0), move(160, 2.0), move(220, 3.0)], [draw(130, 1.0), draw(250, 3.0)]) == [40, 100, 40]


def test_what_changes_nothing_is_no_move_and_no_picture():
    moves = [move(100, 1.0), move(160, 1.0), move(220, 2.0)]
    assert shown(moves, [draw(130, 1.0), draw(230, 2.0, changed=False), draw(290, 2.0)]) == [40, 80]
    assert shown(moves, [draw(130, 1.0)]) == [40, None]


def test_a_place_visited_twice_is_told_apart_by_time():
    moves = [move(100, 1.0), move(160, 2.0), move(220, 1.0)]
    assert shown(moves, [draw(120, 1.0), draw(180, 2.0), draw(240, 1.0)]) == [30, 30, 30]
