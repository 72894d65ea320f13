"""Which images a command line means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.errors import RecipeError
from bench_export.prediction.inputs import find_images, find_pairs


def images(*arguments: object, stdin: bytes = b"") -> list[Path]:
    return find_images([str(one) for one in arguments], read_stdin=lambda: stdin)


def pairs(*arguments: object, stdin: bytes = b"") -> list[tuple[Path, Path]]:
    return find_pairs([str(one) for one in arguments], read_stdin=lambda: stdin)


# Images


def test_a_folder_is_read_at_any_depth_sorted_and_without_what_is_no_image(photos: Path) -> None:
    (photos / ".hidden.png").touch()
    (photos / ".cache").mkdir()
    (photos / ".cache" / "thumbnail.png").touch()
    assert images(photos) == [photos / "green.jpg", photos / "red.png", photos / "below" / "blue.png"]


def test_links_to_folders_are_followed_once(photos: Path) -> None:
    (photos / "below" / "up").symlink_to(photos)
    assert len(images(photos)) == 3


def test_a_named_file_is_taken_whatever_it_is_called_and_the_order_stays(photos: Path) -> None:
    named = [photos / "red.png", photos / "notes.md", photos / "green.jpg", photos / "red.png"]
    assert images(*named) == named


def test_a_quoted_glob_is_expanded(photos: Path) -> None:
    assert images(photos / "*") == [photos / "green.jpg", photos / "red.png"]
    assert images(photos / "**" / "*.png") == [photos / "below" / "blue.png", photos / "red.png"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    odd = tmp_path / "a[1].png"
    odd.touch()
    assert images(odd) == [odd]


def test_a_list_on_stdin_holds_a_path_a_line(photos: Path) -> None:
    listed = f"{photos}/red.png\n\n{photos}/with, comma.png\r\n".encode()
    assert images("-", stdin=listed) == [photos / "red.png", photos / "with, comma.png"]


def test_find_print0_works(photos: Path) -> None:
    assert images("-", stdin=f"{photos}/red.png\0{photos}/two\nlines.png\0".encode()) == [
        photos / "red.png",
        photos / "two\nlines.png",
    ]


def test_names_in_no_known_encoding_are_kept() -> None:
    [found] = images("-", stdin=b"caf\xe9.png\n")
    assert found == Path("caf\udce9.png")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "red.png\nbelow/blue.png\n"),
        ("list.csv", "\ufeffred.png,1\nbelow/blue.png,2\n"),
        ("list.csv", "image,label\nred.png,1\nbelow/blue.png,2\n"),
        ("list.tsv", "image\tlabel\nred.png\t1\nbelow/blue.png\t2\n"),
    ],
)
def test_the_paths_of_a_list_start_from_its_folder(photos: Path, name: str, text: str) -> None:
    (photos / name).write_text(text, encoding="utf-8")
    assert images(photos / name) == [photos / "red.png", photos / "below" / "blue.png"]


def test_a_missing_path_is_named_before_anything_runs(photos: Path) -> None:
    with pytest.raises(RecipeError, match=r"rde\.png: there is no such file or folder"):
        images(photos / "red.png", photos / "rde.png")


def test_a_name_that_is_too_long_for_a_file_is_missing_too() -> None:
    with pytest.raises(RecipeError, match="no such file or folder"):
        images("x" * 5000)


@pytest.mark.parametrize(("pattern", "what"), [("empty", "folder"), ("*.webp", "pattern")])
def test_nothing_found_is_said(photos: Path, pattern: str, what: str) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(RecipeError, match=f"no image in this {what}") as refused:
        images(photos / pattern)
    assert "png" in str(refused.value.hint)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_list_is_said(content: bytes) -> None:
    with pytest.raises(RecipeError, match="the list on stdin: names no image"):
        images("-", stdin=content)


# Pairs


def test_paths_are_taken_two_by_two() -> None:
    here = Path(__file__)
    other = here.with_name("conftest.py")
    assert pairs(here, other, other, here) == [(here, other), (other, here)]


@pytest.mark.parametrize("turned", [False, True])
def test_one_image_is_compared_with_each_of_a_folder(photos: Path, turned: bool) -> None:
    one = photos / "red.png"
    arguments = (photos / "below", one) if turned else (one, photos / "below")
    expected = (photos / "below" / "blue.png", one) if turned else (one, photos / "below" / "blue.png")
    assert pairs(*arguments) == [expected]
    assert len(pairs(photos, one) if turned else pairs(one, photos)) == 3


def test_a_path_without_its_second_is_refused(photos: Path) -> None:
    with pytest.raises(RecipeError, match=r"red\.png has no second image"):
        pairs(photos / "green.jpg", photos / "red.png", photos / "red.png")


def test_two_folders_are_no_pairs(photos: Path) -> None:
    with pytest.raises(RecipeError, match="3 and 3 images: which of them are pairs"):
        pairs(photos, photos)


@pytest.mark.parametrize("text", ["red.png,green.jpg\n", "first,second\nred.png, green.jpg\n", "red.png\tgreen.jpg\n"])
def test_a_list_of_pairs_has_two_columns(photos: Path, text: str) -> None:
    (photos / "pairs.csv").write_text(text, encoding="utf-8")
    assert pairs(photos / "pairs.csv") == [(photos / "red.png", photos / "green.jpg")]


def test_pairs_come_from_stdin_too() -> None:
    assert pairs("-", stdin=b"a.png,b.png\nb.png,c.png\n") == [
        (Path("a.png"), Path("b.png")),
        (Path("b.png"), Path("c.png")),
    ]


def test_lines_that_are_no_pairs_are_named() -> None:
    with pytest.raises(RecipeError, match="not two images in line 2, 3"):
        pairs("-", stdin=b"a.png,b.png\nc.png\nd.png,\n")


@pytest.mark.parametrize("find", [images, pairs])
def test_a_list_that_is_no_table_is_said(find: Callable[..., object], tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text('"' + "x" * 200_000, encoding="utf-8")
    with pytest.raises(RecipeError, match="no table: field larger"):
        find(tmp_path / "list.csv")
