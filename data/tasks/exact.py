"""The score of tasks that have one right answer."""


def score(prompt: str, answer: str, response: str) -> float:
    """1 if the response is the answer, 0 otherwise; white space around it does not count."""
    return float(response.strip() == answer.strip())
