"""The pages: what is foreign is escaped, what is missing leaves no empty section."""

from pipeline.report.page import Report, ReportEntry, ReportStep, page, run_page

SIDE = {
    "R1": 50.0,
    "R5": 80.0,
    "R10": 90.0,
    "R50": 100.0,
    "MdR": 1.0,
    "MnR": 2.0,
    "Rsum": 220.0,
    "n": 4,
    "tied": 1,
}
RESULT = {
    "t2v": SIDE,
    "v2t": SIDE,
    "Rsum": 440.0,
    "tied": 2,
    "tie_policy": "pessimistic",
    "v2t_definition": "captions",
}


def metrics(name: str = "train", **more: object) -> dict:
    chance = {"t2v": {"R1": 1.0, "MdR": 50.5}, "v2t": {"R1": 1.0}}
    facts = {
        "checkpoint": name,
        "split": "test",
        "texts": 4,
        "videos": 4,
        "chance": chance,
        "attributes": {"none": {}},
    }
    return facts | {"results": {"none": RESULT}, "examples": {"best": [], "worst": []}} | more


def shown(
    *entries: ReportEntry, steps: list[ReportStep] | None = None, thumbnails: dict | None = None
) -> str:
    return page(Report("Title", list(entries), steps or [], {"torch": "2"}, thumbnails or {}))


def entry(name: str = "train", **more: object) -> ReportEntry:
    return ReportEntry(metrics(name, **more), {"t2v": [1, 1, 7, 90], "v2t": [1, 2]})


def test_texts_and_names_are_escaped() -> None:
    query = {
        "text": "<b>a & b</b>",
        "video": 'x"<y>',
        "rank": 3,
        "answers": [{"video": "z", "score": 0.5}],
    }

    text = shown(entry("<train>", examples={"best": [query], "worst": []}))

    assert "<b>a" not in text
    assert "&lt;b&gt;a &amp; b" in text
    assert "&lt;train&gt;" in text


def test_a_lost_query_shows_the_wanted_video_first() -> None:
    query = {"text": "t", "video": "own", "rank": 9, "answers": [{"video": "other", "score": 0.5}]}

    text = shown(entry(examples={"best": [], "worst": [query]}), thumbnails={"own": [b"jpeg"]})

    assert text.index("wanted, rank 9") < text.index("0.500")
    assert "data:image/jpeg;base64,anBlZw==" in text


def test_sections_without_content_are_left_out() -> None:
    text = shown(entry())

    assert "Training" not in text
    assert "attribute" not in text


def test_the_best_of_several_is_bold_in_each_column() -> None:
    better = entry("second")
    better.metrics["results"] = {"none": RESULT | {"t2v": SIDE | {"R1": 60.0, "MnR": 1.5}}}

    text = shown(entry(), better)

    assert '<td class="first best">60.0</td>' in text
    assert '<td class="best">1.5</td>' in text


def test_a_checkpoint_that_was_only_re_ranked_has_its_name_in_the_row() -> None:
    only = entry()
    only.metrics["results"] = {"dsl": RESULT}

    assert '<td class="name">train with dual softmax</td>' in shown(only)


def test_difference_to_the_published_figure_is_shown() -> None:
    text = page(
        Report(
            "T",
            [ReportEntry(metrics(), {"t2v": [1], "v2t": [1]}, published={"t2v": {"R1": 47.5}})],
            [],
            {},
            {},
        )
    )

    assert '<span class="delta">+2.5</span>' in text


def test_items_set_aside_are_listed_with_their_reason() -> None:
    step = ReportStep(
        "compress",
        "compress",
        {"ok": 1, "failed": 1},
        1_500_000,
        {},
        [("bad\udcff", "truncated", "half of it")],
    )

    text = shown(entry(), steps=[step])

    assert "1.5 MB" in text
    assert "bad\\udcff" in text
    assert "truncated" in text


def test_the_page_can_be_encoded_whatever_ids_hold() -> None:
    shown(entry("имя\udcff")).encode("utf-8")


def test_run_page_shows_the_command_and_a_bar_per_step() -> None:
    text = run_page("python cli.py run 'a b'", "today", "here", [("frames", 3.0), ("train", 60.0)])

    assert "run &#39;a b&#39;" in text
    assert "63.0 s in all steps" in text
    assert "width:5.00%" in text


def test_the_best_model_is_open_and_its_queries_play_where_a_clip_lies() -> None:
    query = {"text": "t", "video": "own", "rank": 1, "answers": [{"video": "own", "score": 0.5}]}
    examples = {"best": [query], "worst": []}
    better = entry("second", examples=examples)
    better.metrics["results"] = {"none": RESULT | {"t2v": SIDE | {"R1": 60.0}}}

    text = page(
        Report(
            "T",
            [entry("first", examples=examples), better],
            [],
            {},
            {"own": [b"one", b"two"]},
            {"own": "../compress/own%20film.mp4"},
        )
    )

    assert "<details><summary>first" in text
    assert "<details open><summary>second" in text
    assert '<a class="frames" href="../compress/own%20film.mp4"' in text
    assert 'alt="own, frame 2 of 2"' in text


def test_temperatures_have_an_axis_of_their_own() -> None:
    curve = ([1, 2], [3.0, 2.0])
    text = shown(
        ReportEntry(
            metrics(),
            {"t2v": [1], "v2t": [1]},
            train={"similarity": curve, "loss": curve, "clip.logit_scale": curve},
        )
    )

    assert "train: loss</figcaption>" in text
    assert "train: temperature (logarithm)</figcaption>" in text
    assert 'aria-label="train: loss: loss"' in text
    assert 'aria-label="train: temperature (logarithm): clip.logit_scale"' in text


def test_intervals_stand_below_recall_at_one() -> None:
    limits = {"R1": [40.25, 61.0]}
    found = {"t2v": limits, "v2t": limits, "level": 95, "resamples": 2000, "videos": 4, "seed": 0}
    only = entry()
    only.metrics["results"] = {"none": RESULT | {"intervals": found}}

    text = shown(only)

    assert '<span class="delta">40.2–61.0</span>' in text
    assert "95 % intervals: 2,000 draws of the 4 videos" in text
