"""Questions of one's own: how a file is read, and what is said of one that is not right."""

import json

import pytest
from wildmerge import WildmergeError
from wildmerge.study import check_tasks, own_files, read_task
from wildmerge.study.questions import read_rows

ACC = {"metric": "acc"}
ROWS = [
    {"question": "Odd?", "choices": ["one", "two"], "answer": 0},
    {"question": "Even?", "choices": ["one", "two", "three"], "answer": 1},
]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path, **wanted):
    rows = read_task(path, ACC | {"file": str(path)} | wanted)
    return [(row["question"], row["choices"], row["answer"]) for row in rows]


EXPECTED = [("Odd?", ["one", "two"], 0), ("Even?", ["one", "two", "three"], 1)]


@pytest.mark.parametrize("answers", [[0, 1], ["0", "1"], ["A", "B"], ["one", "two"]])
def test_an_answer_is_a_text_a_letter_or_a_number(answers, tmp_path):
    rows = [row | {"answer": answer} for row, answer in zip(ROWS, answers, strict=True)]
    assert read(jsonl(tmp_path / "own.jsonl", rows)) == EXPECTED


def test_a_csv_with_a_column_a_choice(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("\ufeffFrage,a,b,c,richtig\nOdd?,one,two,,A\nEven?,one,two,three,B\n")
    columns = {"question": "Frage", "choices": ["a", "b", "c"], "answer": "richtig"}
    assert read(path, columns=columns) == EXPECTED


def test_answers_that_are_generated_and_choices_of_the_template(tmp_path):
    path = jsonl(tmp_path / "own.jsonl", ROWS)
    assert [row["answer"] for row in read_task(path, {"metric": "exact_match"})] == ["one", "two"]
    texts = jsonl(tmp_path / "texts.jsonl", [{"question": "Odd?", "answer": "yes"}])
    assert read_task(texts, {"metric": "exact_match"})[0]["answer"] == "yes"
    template = {"doc_to_choice": ["no", "yes"]}
    assert read_task(texts, ACC | {"template": template})[0]["answer"] == 1
    with pytest.raises(WildmergeError, match="it has no choices"):
        read_task(texts, ACC)


def test_paragraphs_of_a_text_are_documents(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("One\nline.\n\n\nTwo.\n")
    rows = list(read_rows(path))
    assert [row["text"] for _, row in rows] == ["One\nline.", "Two."]
    assert [place.rpartition(" ")[2] for place, _ in rows] == ["1", "5"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS[0], ROWS[1] | {"answer": 3}], r"line 2: an answer was expected .* found 3 for"),
        ([ROWS[0], ROWS[1] | {"answer": "B"}], r"in the same way in the whole file"),
        ([ROWS[0] | {"choices": ["one"]}], r"two choices or more was expected, found \['one'\]"),
        ([ROWS[0] | {"choices": ["one", "one"]}], "choices that differ"),
        ([ROWS[0] | {"question": ""}], "the text of a question was expected, found ''"),
        ([ROWS[0] | {"choices": "one|two"}], "choices: "),
        ([ROWS[0] | {"choices": ["1", "0"], "answer": "0"}], "could be the text .* or a number"),
    ],
)
def test_rows_that_are_no_questions(rows, message, tmp_path):
    with pytest.raises(WildmergeError, match=message):
        read(jsonl(tmp_path / "own.jsonl", rows))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("own.jsonl", '{"question": 1}\nno json\n', "line 2: an object of JSON"),
        ("own.csv", "question,choices\na,b,c\n", "line 2: 2 cells were expected"),
        ("own.jsonl", b'{"question": "\xe9"}', "UTF-8"),
    ],
)
def test_lines_that_are_not_of_the_format(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(WildmergeError, match=message):
        list(read_rows(path))


def suites(path, **task):
    wanted = {"file": str(path)} | ACC | task
    return {"mine": {"description": "Mine.", "dtype": "float32", "tasks": {"own": wanted}}}


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"file": "no.jsonl"}, "found no file there"),
        ({"file": "."}, "found no file there"),
        ({"columns": {"question": "text"}}, "it has no text; its columns are question, choices"),
        ({"columns": {"choices": ["a", "b"]}}, "it has no a, b"),
        ({"num_fewshot": 3}, "a file of `examples` was expected"),
        ({"examples": "no.csv"}, "Correct `examples`"),
        ({"template": "arc_eazy"}, "Near it are arc_easy"),
        ({"template": "mmlu"}, "one task of lm-eval was expected as the template, found 'mmlu'"),
        ({"template": "winogrande", "metric": "acc_norm"}, "'winogrande' has only acc"),
        ({"template": "gsm8k"}, "has only exact_match,strict-match, exact_match,flexible-extract"),
    ],
)
def test_a_task_that_cannot_be_is_refused_when_sheets_are_read(task, message, tmp_path):
    path = jsonl(tmp_path / "own.jsonl", ROWS)
    with pytest.raises(WildmergeError, match=f"suites.yaml, suite mine, task own: .*{message}"):
        check_tasks(suites(path, **task), "suites.yaml")


def test_the_files_of_a_suite_are_inputs_of_its_rule(tmp_path):
    path = jsonl(tmp_path / "own.jsonl", ROWS)
    mine = suites(path, examples=str(path), num_fewshot=1, template="mmlu_anatomy")
    check_tasks(mine, "suites.yaml")
    assert own_files(mine["mine"]) == [str(path)]
    assert own_files({"tasks": {"piqa": {"metric": "acc", "num_fewshot": 0}}}) == []


@pytest.mark.parametrize(
    ("task", "metric", "message"),
    [
        ("gsm8k", "acc", "has only exact_match,strict-match, exact_match,flexible-extract"),
        ("gsm8k", "exact_match", "exact_match,strict-match"),
        ("ifeval", "inst_level_strict_acc", "only prompt_level_strict_acc"),
        ("wikitext", "word_perplexity", "has only bits_per_byte"),
        ("truthfulqa_mc2", "acc_norm", "only acc"),
        ("humaneval", "pass@1", "runs the code"),
        ("squadv2", "exact", "a Python class"),
        ("mmmu_val_math", "acc", "pictures"),
        ("wmt16-en-de", "bleu", "mean over questions"),
    ],
)
def test_what_cannot_be_a_benchmark_is_refused_when_sheets_are_read(task, metric, message):
    spec = {"tasks": {task: {"metric": metric, "num_fewshot": 0}}}
    with pytest.raises(WildmergeError, match=f"task {task}: .*{message}"):
        check_tasks({"mine": spec}, "suites.yaml")


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("gsm8k", "exact_match,strict-match"),
        ("minerva_math", "math_verify"),
        ("ifeval", "prompt_level_strict_acc"),
        ("wikitext", "bits_per_byte"),
        ("lambada_openai", "acc"),
    ],
)
def test_generated_answers_texts_and_last_words_can_be_benchmarks(task, metric):
    check_tasks({"mine": {"tasks": {task: {"metric": metric, "num_fewshot": 0}}}}, "suites.yaml")
