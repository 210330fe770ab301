"""Ask a server as `OpenAIScorer` does, through OpenAI's own client. Runs in an environment of its own.

    python openai_client.py URL MODEL QUESTION

Prints the likeliest tokens as JSON, after the answers have passed the client's own types.
"""

# mypy: disable-error-code="import-not-found,import-untyped"
import json
import sys

from openai import OpenAI
from openai.types import Model
from openai.types.chat import ChatCompletion


def main() -> None:
    """List the models, ask, print."""
    url, model, question = sys.argv[1:]
    client = OpenAI(base_url=url, api_key="none")
    listed = json.loads(client.models.with_raw_response.list().content)
    names = [Model.model_validate(one).id for one in listed["data"]]
    if names != [model]:
        raise SystemExit(f"expected {model}, got {names}")
    raw = client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=1,
        temperature=0,
        logprobs=True,
        top_logprobs=20,
    )
    answer = ChatCompletion.model_validate_json(raw.content)
    first = answer.choices[0].logprobs.content[0]
    json.dump([(one.token, one.logprob) for one in first.top_logprobs], sys.stdout)


if __name__ == "__main__":
    main()
