"""Fact-checking records of `mini`: evidence with several claims and the denial of each.

Claims come from public sets of entailment, and from sentences of the training passages: as they are, which the passage
supports, and changed by rule (`corrupt.py`), which it does not.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.mini.claims.corrupt import corrupted, names_of
from benchmarks.mini.encoders import Encode
from benchmarks.mini.sets import Record, part_of, read_facts
from gliclass_rerank.tasks.fact_check.claims import claim_labels
from gliclass_rerank.tasks.fact_check.sentences import split_sentences

FACTS = {  # maximum claims per set
    "breaking_nli": 2500, "cad_nli": 11000, "conjnli": 8000, "fever_dev_rte": 13000, "feverous_dev": 2900,
    "fool_me_twice": 2600, "infotabs": 18000, "med_monotonicity": 1500, "mnli_dev": 19600, "snli_devtest": 19600,
}  # fmt: skip
YES_OR_NO = ("fever_dev_rte", "feverous_dev", "fool_me_twice")  # get "nei" records from evidence of similar claims
OF_WIKIPEDIA = (*YES_OR_NO, "conjnli")  # evidence that stays true among other sentences
SIMILAR = 0.8  # cosine from which two claims may say the same
CLAIMS = 5  # of one text, beside those about something else
WINDOW = 7  # sentences of a passage at most
SENTENCE = (30, 260)  # characters of a sentence that makes a claim


def facts(folder: Path, seen: set[str], rng: random.Random, dense: Encode) -> Iterator[Record]:
    """Claims with evidence of one set. In sets without "nei", some claims also get evidence of a similar claim.

    `FACTS` limits the training part. All records of the other parts are kept, since rates need many records.
    """
    every = read_facts(folder, seen, rng)
    train = [record for record in every if part_of(record["premise"]) == "train"][: FACTS[folder.name]]
    kept = train + [record for record in every if part_of(record["premise"]) != "train"]
    rng.shuffle(kept)
    print(f"{folder.name}: {len(kept)} claims")
    if folder.name in YES_OR_NO:
        vectors = dense([record["hypothesis"] for record in kept])
        for i in rng.sample(range(len(kept)), len(kept) // 2):
            cosine = vectors @ vectors[i]
            near = [j for j in np.argsort(-cosine)[1:12] if cosine[j] < SIMILAR]
            if others := [premise for j in near if (premise := kept[j]["premise"]) != kept[i]["premise"]]:
                kept.append({"premise": rng.choice(others), "hypothesis": kept[i]["hypothesis"], "label": "nei"})
        rng.shuffle(kept)
    for record in kept:
        yield {**record, "source": folder.name}


def several_claims(found: Sequence[Record], rng: random.Random) -> Iterator[Record]:
    """Each piece of evidence with its claims and their denials, and sometimes a claim about something else."""
    by_premise: dict[str, list[Record]] = {}
    for fact in found:
        by_premise.setdefault(fact["premise"], []).append(fact)
    premises = [premise for premise, own in by_premise.items() if own[0]["source"] in OF_WIKIPEDIA]
    for premise, own in by_premise.items():
        rng.shuffle(own)
        for start in range(0, len(own), CLAIMS):
            chosen = own[start : start + CLAIMS]
            if rng.random() < 0.3:
                stranger = rng.choice(found)
                chosen += [{**stranger, "label": "nei"}] if stranger["premise"] != premise else []
            yield claims_record(_shown(premise, own[0]["source"], premises, rng), chosen)


def claims_record(evidence: str, claims: Sequence[Mapping[str, str]]) -> Record:
    """A text with labels: each claim, true if supported, and its denial, true if refuted."""
    shown: list[str] = []
    true: list[str] = []
    for claim in claims:
        labels = claim_labels(claim["hypothesis"])
        if labels[0] in shown:
            continue
        shown += labels
        true += [label for label, of in zip(labels, ("supported", "refuted"), strict=True) if claim["label"] == of]
    return {"text": evidence, "all_labels": shown, "true_labels": true}


def _shown(premise: str, source: str, premises: Sequence[str], rng: random.Random) -> str:
    """The evidence as the model reads it: sometimes among other evidence, or an object as lines."""
    whole = premise.endswith("}")  # a long object is cut like any passage, and cannot be parsed
    if source == "infotabs" and whole and rng.random() < 0.4:
        return "\n".join(f"{key}: {value}" for key, value in json.loads(premise).items())
    if source in OF_WIKIPEDIA and rng.random() < 0.3:
        parts = [premise, *rng.sample(premises, rng.choice((1, 1, 2)))]
        rng.shuffle(parts)
        return " ".join(parts)
    return premise


def from_passages(passages: Sequence[str], rng: random.Random) -> Iterator[Record]:
    """Sentences of each passage as claims: some as they are, some changed, some of another passage.

    In half of the records the passage is changed instead of the claim.
    """
    sentences = [_claims(passage) for passage in passages]
    for passage, own in zip(passages, sentences, strict=True):
        if len(own) < 2:
            continue
        start = rng.randrange(max(1, len(own) - WINDOW))
        window = own[start : start + rng.randint(2, WINDOW)]
        names = list(dict.fromkeys(names_of(passage)))
        claims, text = [], " ".join(window)
        for sentence in rng.sample(window, min(CLAIMS, len(window))):
            changed = corrupted(sentence, rng, names)
            kind = rng.random()
            if changed is None or kind < 0.4:
                claims.append({"hypothesis": sentence, "label": "supported"})
            elif kind < 0.8:
                claims.append({"hypothesis": changed, "label": "refuted"})
            else:
                text = text.replace(sentence, changed)
                claims.append({"hypothesis": sentence, "label": "refuted"})
                if rng.random() < 0.5:
                    claims.append({"hypothesis": changed, "label": "supported"})
        if others := rng.choice(sentences):
            stranger = rng.choice(others)
            claims += [] if stranger in own else [{"hypothesis": stranger, "label": "nei"}]
        yield claims_record(text, claims)


def _claims(passage: str) -> list[str]:
    """The plain sentences of a passage that state something by themselves."""
    found = [passage[sentence.start : sentence.end] for sentence in split_sentences(passage) if not sentence.block]
    return [sentence for sentence in found if _makes_claim(sentence)]


def _makes_claim(sentence: str) -> bool:
    return SENTENCE[0] <= len(sentence) <= SENTENCE[1] and sentence[0].isupper() and sentence[-1] == "."
