"""Figures by their data, not by their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import figures, tables
from plots.aggregates import Summary, summarise
from plots.published import Published
from plots.runs import Run, RunFolder
from plots.study import Study

WALK, HOP = "dmc_walker_walk", "dmc_hopper_hop"
PUBLISHED = Published()


def run(task: str, method: str, seed: int, y: list[float], bins: Sequence[int] = ()) -> Run:
    x = np.array(bins or range(1, len(y) + 1)) * 100_000
    return Run(task, method, str(seed), Path("nowhere"), x, np.array(y, float))


def study(runs: list[Run], tasks=(WALK, HOP), methods=("mine",), published=None, **options):
    return Study(runs, tasks, methods, PUBLISHED, published, metric="eval/return",
                 width=100_000, **options)


def two_seeds(task: str = WALK, method: str = "mine") -> list[Run]:
    return [run(task, method, 0, [100, 200]), run(task, method, 1, [300, 600, 900])]


def line(axes: Axes, label: str) -> np.ndarray:
    (found,) = [one for one in axes.get_lines() if one.get_label() == label]
    return np.array(found.get_xydata())


def heights(figure: Figure) -> list[float]:
    return [bar.get_height() for bar in figure.axes[0].patches]


def footnote(figure: Figure) -> str:
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def test_curves_show_means_and_published_ones():
    figure = figures.draw_curves(study(two_seeds()))
    walk, hop = figure.axes
    assert walk.get_title() == "Walker Walk"
    mine = line(walk, "mine (2 seeds)")
    assert mine[:2].tolist() == [[100_000, 200], [200_000, 400]]
    dotted = [one for one in walk.get_lines() if one.get_linestyle() == ":"]
    assert dotted[0].get_xydata()[-1].tolist() == [300_000, 900]
    theirs = line(walk, "Dreamer, TF2 release")
    curve = PUBLISHED.curves[WALK, "dreamer_tf2_release"]
    assert theirs[:, 1].tolist() == curve.mean[: len(theirs)].tolist()
    assert theirs[-1, 0] == 400_000  # the first point outside, so that the line meets the edge
    assert line(walk, "A3C, states (100M)")[0, 1] == PUBLISHED.point(WALK, "a3c").score
    assert [text.get_text() for text in hop.texts] == []
    assert "1 of 1 method(s) lack a score on some of the 2 tasks: mine." in footnote(figure)


def panel_texts(made: Study) -> list[str]:
    return [text.get_text() for axes in figures.draw_curves(made).axes for text in axes.texts]


def test_missing_seeds_are_on_the_panel():
    runs = two_seeds(WALK) + [run(HOP, "mine", 0, [1, 2])]
    assert panel_texts(study(runs, published=[])) == ["mine: 1 of 2 seeds"]
    assert panel_texts(study(runs, published=[], seeds=5)) == ["mine: 2 of 5 seeds",
                                                               "mine: 1 of 5 seeds"]
    valueless = [RunFolder(HOP, "mine", str(seed), Path("nowhere")) for seed in (1, 2, 3)]
    # Seed 1 has another attempt, which has values.
    made = study(runs[:2] + [run(HOP, "mine", 1, [1, 2])], published=[], valueless=valueless)
    assert made.expected("mine") == 3
    assert ("Fewer seeds: mine on dmc_walker_walk (2 of 3), mine on dmc_hopper_hop (1 of 3)."
            in made.notes)
    assert panel_texts(made) == ["mine: 2 of 3 seeds", "mine: 1 of 3 seeds"]


@pytest.mark.parametrize("runs, options, expected", [
    ([run("a", "mine", seed, [1]) for seed in range(3)] + [run("b", "mine", 0, [1], [9])], {},
     ["1 of 1 method(s) lack a score on some of the 3 tasks: mine.",
      "Fewer seeds: mine on b (1 of 3)."]),
    ([run("a", "mine", seed, [1]) for seed in range(3)], {"tasks": ["a"], "seeds": 5},
     ["Fewer seeds: mine on a (3 of 5)."]),
    ([run("a", "mine", 0, [1, 2])], {"tasks": ["a"], "at": 3e5}, []),  # within a bin
    ([run("a", "mine", seed, [1, 2, 3][seed:]) for seed in range(3)], {"tasks": ["a"], "at": 3e5},
     ["Fewer seeds: mine on a (2 of 3)."]),
    ([run("a", "m", 0, [1]), run("a", "n", 0, [1, 1], [1, 4]), run("a", "o", 0, [1], [2])],
     {"tasks": ["a"], "methods": "mno"},
     ["Methods end at different frames on a (m 100k, n 400k); --at compares them at the same."]),
    ([run("a", "m", 0, [1]), run("a", "o", 0, [1], [2])], {"tasks": ["a"], "methods": "mo"}, [])])
def test_notes_name_what_is_missing(runs, options, expected):
    assert study(runs, **{"tasks": "abc", "published": [], **options}).notes == expected


def test_bars_are_final_scores_and_share_axes_where_tasks_share_a_scale():
    figure = figures.draw_bars(study(two_seeds(), published=["d4pg"], tasks=[WALK]))
    assert heights(figure) == [550, PUBLISHED.point(WALK, "d4pg").score]
    tasks = ["atari_pong", "atari_hero", "gym_X"]
    made = study([run(task, "mine", 0, [5]) for task in tasks], tasks)
    figure = figures.draw_bars(made)
    assert len([axes for axes in figure.axes if axes.get_visible()]) == 3
    assert heights(figure)[:2] == [5, PUBLISHED.point("atari_pong", "rainbow").score]
    human, rest = summary_of(made).entries[3], summary_of(made).notes[-1]
    assert (human.label, human.scores["atari_pong"].tolist()) == ("Human gamer", [1])
    assert rest.startswith("Left out of averages over tasks, ") and rest.endswith(": gym_X.")


def test_twelve_methods_look_different():
    """By colour in the first six, by line, marker and hatch in the next: legend and all."""
    methods = [f"m{i:02}" for i in range(12)]
    made = study([run(WALK, name, 0, [1, 2, 3, 4, 5]) for name in methods], tasks=[WALK],
                 methods=methods, published=[])
    curves, profiles = (figure.axes[0].get_legend_handles_labels()[0] for figure in (
        figures.draw_curves(made), figures.draw_profiles(summary_of(made))))
    assert len({(one.get_color(), one.get_linestyle(), one.get_marker()) for one in curves}) == 12
    assert len({one.get_color() for one in curves}) == 6
    assert len({(one.get_color(), one.get_marker()) for one in profiles}) == 12
    bars = figures.draw_bars(made).axes[0].patches
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in bars}) == 12


def test_every_score_says_its_frames_where_methods_end_apart():
    runs = [run(WALK, "short", 0, [50]), run(WALK, "long", 0, [50, 60, 70])]
    made = study(runs, tasks=[WALK], methods=("short", "long"),
                 published=["dreamer_tf2_release", "dreamer"])
    curve = PUBLISHED.curves[WALK, "dreamer_tf2_release"].mean
    assert made.published_at(WALK, "dreamer_tf2_release")[-1].score == curve[3]
    assert made.published_name("dreamer_tf2_release") == "Dreamer, TF2 release (300k)"
    head, row, mean = tables.score_cells(made)
    assert head == ["Task", "short (100k)", "long (300k)", "Dreamer, TF2 release",
                    "Dreamer, paper (5M)"]
    assert row[:3] == ["Walker Walk", "50.0 (1)", "70.0 (1)"]
    assert row[3] == f"{curve[1]:.1f} at 100k, {curve[3]:.1f} at 300k"
    assert mean[3] == f"{curve[3]:.1f} at 300k"
    records = [record for record in tables.score_records(made)
               if record["method"] == "dreamer_tf2_release"]
    assert [record["frames_most"] for record in records] == [100_000, 300_000]
    labels = figures.draw_bars(made).axes[0].get_legend_handles_labels()[1]
    assert labels == ["short (100k)", "long (300k)", "Dreamer, TF2 release (300k)",
                      "Dreamer, paper (5M)"]
    assert "(short 100k, long 300k)" in footnote(figures.draw_bars(made))
    assert [entry.label for entry in summary_of(made).entries][:2] == [
        "short (100k)", "long (300k)"]


def test_scores_of_one_method_at_several_frames():
    runs = [run(WALK, "mine", 0, [1, 2]), run(HOP, "mine", 0, [1, 2, 4])]
    head, walk, hop, mean = tables.score_cells(study(runs, published=["dreamer_tf2_release"]))
    assert [row[1] for row in (head, walk, hop, mean)] == [
        "mine", "2.000 (1) at 200k", "4.000 (1) at 300k", "3.000 at 200k-300k"]
    assert walk[2].endswith(" at 200k") and hop[2].endswith(" at 300k")
    assert mean[2].endswith(" at 200k-300k")
    same = tables.score_cells(study(runs, published=["dreamer_tf2_release"], at=200_000))
    assert same[0][1:] == ["mine (200k)", "Dreamer, TF2 release (200k)"]


def summary_of(made: Study) -> Summary:
    return summarise(made, resamples=100)


def test_aggregates_say_their_coverage():
    made = study(two_seeds() + two_seeds(HOP, "other"), methods=("mine", "other"),
                 published=["planet"])
    summary = summary_of(made)
    figure = figures.draw_aggregates(summary)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["mine (200k-300k) (1 of 2 tasks)", "other (200k-300k) (1 of 2 tasks)",
                      "PlaNet, paper (5M)"]
    assert summary.entries[0].aggregates["mean"].value == pytest.approx(0.55)
    assert np.isnan(summary.entries[2].aggregates["mean"].low)


def test_profiles_and_improvements():
    made = study(two_seeds(), tasks=[WALK], published=["planet", "a3c"])
    summary = summary_of(made)
    figure = figures.draw_profiles(summary)
    drawn = line(figure.axes[0], "mine (200k-300k)")
    assert drawn[0].tolist() == [0, 1] and drawn[-1, 1] == 0
    rows = summary.improvements
    assert [(x, y, tasks) for x, y, tasks, _ in rows] == [
        ("mine (200k-300k)", "PlaNet, paper (5M)", 1),
        ("mine (200k-300k)", "A3C, states (100M)", 1)]
    a3c = PUBLISHED.point(WALK, "a3c").score
    assert rows[1][3].value == np.mean([a3c < 200, a3c < 900])
    assert len(figures.draw_improvements(summary).axes[0].get_yticklabels()) == 2


def test_the_drawing_of_pairs_alone_is_cut():
    methods = [f"m{i}" for i in range(8)]
    summary = summary_of(study([run(WALK, name, 0, [1]) for name in methods], tasks=[WALK],
                               methods=methods, published=["planet"]))
    rows = summary.improvements
    assert len(rows) == 8 + 28
    assert [y for _, y, *_ in rows[:8]] == ["PlaNet, paper (5M)"] * 8
    figure = figures.draw_improvements(summary)
    assert len(figure.axes[0].get_yticklabels()) == 24
    assert "12 more pairs are not drawn" in footnote(figure)


def test_sweeps_are_found_in_the_names():
    """As `dreamer.sweep` names them; keys and bases both hold underscores."""
    names = ["mine_horizon=5", "mine_behavior.horizon=10", "mine_lr=1e-4", "mine", "x_kind=gru"]
    assert figures.sweeps(names) == {
        "horizon": {"mine": {5.0: "mine_horizon=5", 10.0: "mine_behavior.horizon=10"}}}
    names = ["dreamer_dmc_small_kl_scale=1", "dreamer_dmc_small_kl_scale=0.1",
             "dreamer_value.units=20", "dreamer_value.units=30",
             "dreamer_horizon=5_gamma=0.9", "dreamer_horizon=5_gamma=0.99", "x_own_key=1",
             "x_own_key=2"]
    assert figures.sweeps(names) == {
        "kl_scale": {"dreamer_dmc_small": {1.0: names[0], 0.1: names[1]}},
        "units": {"dreamer": {20.0: names[2], 30.0: names[3]}},
        "gamma": {"dreamer_horizon=5": {0.9: names[4], 0.99: names[5]}},
        "own_key": {"x": {1.0: names[6], 2.0: names[7]}},
    }


def test_sweep_figure():
    names = ("mine_horizon=5", "mine_horizon=10")
    runs = two_seeds(WALK, names[0]) + [run(WALK, names[1], 0, [7])]
    made = study(runs, methods=names, tasks=[WALK])
    figure = figures.draw_sweep(made, "horizon", figures.sweeps(names)["horizon"])
    (axes,) = figure.axes
    ours = axes.containers[0].lines[0].get_xydata()
    assert ours.tolist() == [[5, 550], [10, 7]]
    theirs = line(axes, "Dreamer, paper (figure)")
    assert theirs[:, 0].tolist() == [3, 5, 10, 15, 20, 25, 30, 40]
    assert "approximate" in footnote(figure)


def test_variants_figure():
    made = study(two_seeds(HOP), tasks=[HOP])
    figure = figures.draw_variants(made, PUBLISHED.ablation("fig7"))
    assert heights(figure) == [550, 310, 170, 0]
    assert figure.axes[0].get_legend_handles_labels()[1][0] == "mine (200k-300k)"
    made = study(two_seeds("gym_X"), tasks=["gym_X"])
    figure = figures.draw_variants(made, PUBLISHED.ablation("fig7"))
    assert heights(figure) == [550]
    assert "Grey" not in footnote(figure)


def test_variants_are_found_in_the_names_with_what_they_vary():
    names = ["dreamer", "dreamer_contrastive", "dreamer_no_value_small", "dreamer_score",
             "dreamer_small", "late/dreamer", "late/dreamer_no_value", "planet", "planets"]
    found = {name: figures.variants(names, words) for name, words in figures.VARIANTS.items()}
    assert found == {
        "fig7": ["dreamer", "dreamer_no_value_small", "dreamer_small", "late/dreamer",
                 "late/dreamer_no_value", "planet"],
        "fig8": ["dreamer", "dreamer_contrastive"], "dynamics": []}


def test_tables():
    late = tables.score_records(study(two_seeds(), at=4e5, published=[]))
    assert [(record["seeds"], record["seeds_without_score"]) for record in late] == [(1, 1)]
    made = study(two_seeds(), published=["dreamer", "d4pg"])
    head, *rows = tables.score_cells(made)
    assert head == ["Task", "mine (200k-300k)", "Dreamer, paper (5M)", "D4PG, images (100M)"]
    assert [row[:2] for row in rows] == [
        ["Walker Walk", "550.0 ± 350.0 (2)"], ["Hopper Hop", "-"],
        ["Mean over tasks", "550.0 (1 of 2 tasks)"]]
    records = tables.score_records(made)
    assert records[0]["frames_least"] == 200_000 and records[0]["frames_most"] == 300_000
    assert [record["seeds"] for record in tables.curve_records(made)] == [2, 2, 1]


def test_markdown_and_latex():
    cells = [["A|B", "m_1"], ["50%", "1 ± 2"]]
    assert tables.markdown(cells, ["note"]) == (
        "| A\\|B | m_1 |\n|---|---:|\n| 50% | 1 ± 2 |\n\n- note\n")
    text = tables.latex(cells, ["note"])
    assert "A|B & m\\_1 \\\\" in text and "50\\% & 1 $\\pm$ 2 \\\\" in text
