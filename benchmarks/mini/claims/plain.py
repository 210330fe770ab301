"""Plain statements by template, each with what follows from it and what contradicts it.

Entailment sets hold few claims that differ from their evidence by order of words alone ("A hired B", "B hired A") or by
one "not". A model that compares words passes such claims as supported. The words of
`benchmarks/quality/contradictions.jsonl` are left out, so that file tests what was learnt and not what was memorised.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks.mini.claims.facts import claims_record
from benchmarks.mini.sets import Record


class Plain(NamedTuple):
    """A statement, claims that follow from it, and claims that it contradicts."""

    evidence: str
    supported: list[str]
    refuted: list[str]


PEOPLE = (
    "Ava Noah Irene Omar Clara Hugo Nina Felix Sofia Leon Priya Marco Elena Viktor Aisha Daniel Greta Samuel Yuki "
    "Ivan Rosa Peter Fatima Oscar Helen Ahmed Linda Carlos Julia Erik Susan Dmitri Laura Kofi Emma Raj"
).split()  # fmt: skip
SURNAMES = "Keller Okafor Lindqvist Moreau Tanaka Alvarez Novak Fischer Haddad Romano Petrov Walsh Chen Silva".split()
FIRMS = (
    "Northwind Acme Globex Initech Lumina Orbital Vertex Hexagon Bluefin Solaris Kestrel Meridian Siemens Intel "
    "Nokia Oracle Toyota Boeing Renault Philips Adobe Sony Volvo Pfizer"
).split()  # fmt: skip
PLACES = (
    "France Spain Italy Norway Chile Peru Kenya Egypt India China Poland Greece Canada Mexico Sweden Austria Ghana "
    "Lisbon Vienna Oslo Madrid Athens Cairo Lima Boston Denver"
).split()  # fmt: skip
THINGS = (
    "lion,wolf,farmer,teacher,doctor,nurse,judge,lawyer,captain,soldier,king,queen,boy,girl,tiger,fox,horse,bear,"
    "artist,senator,mayor,student,manager,engineer,thief,guard,driver,pilot,sailor,monk"
).split(",")  # fmt: skip
PARTS = (
    "scheduler,worker,gateway,database,cache,compiler,plugin,proxy,router,queue,index,kernel,driver,loader,"
    "controller,sensor,pump,valve,backend,frontend,module,adapter,broker,tokenizer,balancer,monitor"
).split(",")  # fmt: skip
# Past tense and participle of verbs that change their meaning when subject and object are exchanged.
PEOPLE_VERBS = (
    "followed,helped,invited,defeated,praised,watched,replaced,called,blamed,thanked,pushed,sued,interviewed,"
    "supported,criticised,funded,trained,employed,protected,attacked,copied,warned,nominated,succeeded,arrested,"
    "painted,rescued,admired,fired,ignored,trusted,accused,carried,hugged,recommended,photographed,treated,"
    "questioned,promoted,bit,saw,raised,overtook,paid,forgave,led,betrayed,examined,persuaded,elected"
).split(",")  # fmt: skip
PARTICIPLES = {"bit": "bitten", "saw": "seen", "overtook": "overtaken", "forgave": "forgiven"}
PART_VERBS = (
    "calls:called by,imports:imported by,controls:controlled by,contains:contained in,wraps:wrapped by,"
    "starts:started by,loads:loaded by,monitors:monitored by,configures:configured by,replaces:replaced by,"
    "powers:powered by,blocks:blocked by,triggers:triggered by,overrides:overridden by,encrypts:encrypted by,"
    "cools:cooled by"
).split(",")  # fmt: skip
# Relations with a converse: "A lent money to B" says the same as "B borrowed money from A".
CONVERSE = (
    ("lent money to", "borrowed money from"), ("gave a book to", "received a book from"), ("works for", "employs"),
    ("lives north of", "lives south of"), ("is the parent of", "is the child of"), ("arrived before", "arrived after"),
    ("is taller than", "is shorter than"), ("is faster than", "is slower than"), ("is richer than", "is poorer than"),
    ("is stronger than", "is weaker than"), ("is heavier than", "is lighter than"), ("ranks above", "ranks below"),
    ("earns more than", "earns less than"), ("won against", "was defeated by"), ("reports to", "supervises"),
    ("rented a flat to", "rented a flat from"), ("stands in front of", "stands behind"),
    ("scored higher than", "scored lower than"), ("is the teacher of", "is a pupil of"),
    ("inherited from", "left an estate to"),
)  # fmt: skip
GROUPS = (
    "members,visitors,editors,managers,students,moderators,contractors,subscribers,viewers,owners,operators,guards,"
    "volunteers,customers,patients,drivers,interns,reviewers,authors,tenants"
).split(",")  # fmt: skip
ACTIONS = (
    "comment,vote,upload files,invite others,publish posts,export data,view reports,change settings,share links,"
    "create projects,download invoices,use the gym,park for free,borrow books,take photographs,enter the lab,"
    "cancel orders,reset passwords,rename folders,see prices,bring food,apply for leave,join calls,print pages,"
    "sign contracts"
).split(",")  # fmt: skip
SUBJECTS = (
    "service,policy,plan,device,application,contract,hotel,course,camera,report,insurance,library,printer,licence,"
    "subscription,drug,airline,school,battery,engine"
).split(",")  # fmt: skip
DOES = (
    "include breakfast:includes breakfast,support video:supports video,need a password:needs a password,"
    "contain sugar:contains sugar,run on Linux:runs on Linux,charge a fee:charges a fee,work offline:works offline,"
    "expire after a year:expires after a year,pay for repairs:pays for repairs,"
    "store personal data:stores personal data,accept cash:accepts cash,use encryption:uses encryption,"
    "mention the accident:mentions the accident,depend on weather:depends on weather,"
    "cause headaches:causes headaches,have a lift:has a lift,allow returns:allows returns,"
    "offer discounts:offers discounts,keep logs:keeps logs,fit small rooms:fits small rooms"
).split(",")  # fmt: skip
STATES = (
    "included:excluded,active:inactive,valid:invalid,empty:full,on:off,safe:dangerous,public:private,"
    "free of charge:paid,permitted:prohibited,legal:illegal,visible:hidden,locked:unlocked,online:offline,"
    "finished:unfinished,broken:intact,mandatory:voluntary,present:absent,alive:dead,cheap:expensive,"
    "successful:a failure,true:false,complete:incomplete,clean:dirty,wet:dry,early:late,correct:wrong,"
    "available:sold out,approved:refused"
).split(",")  # fmt: skip
NOUNS = (
    "parcel,ticket,account,garden,bridge,file,door,account,alarm,pool,session,machine,key,record,window,request,"
    "claim,payment,shipment,field,flag,test,answer,connection,room,bill,proposal,car,option,feature"
).split(",")  # fmt: skip
DONE = (
    "been to Canada,eaten meat,owned a car,met the president,broken a bone,written a novel,missed a payment,"
    "used the service,played golf,signed the letter,driven a truck,won a prize,read the report,worked abroad,"
    "seen snow"
).split(",")  # fmt: skip
FAILED = (
    "open the safe:opened the safe,reach the summit:reached the summit,pass the exam:passed the exam,"
    "win the vote:won the vote,find the cause:found the cause,repair the roof:repaired the roof,"
    "pay the fine:paid the fine,finish the race:finished the race,stop the leak:stopped the leak,"
    "sign the treaty:signed the treaty"
).split(",")  # fmt: skip
GROUP_DID = (
    "students:passed the test,patients:recovered,parts:were checked,tests:failed,letters:arrived,shops:were closed,"
    "children:ate fruit,members:voted for the plan,cars:had defects,servers:were updated,trees:survived the winter,"
    "players:were injured,windows:were broken,workers:joined the strike,guests:stayed overnight,"
    "plants:contained iron,rooms:had a balcony,flights:were delayed,answers:were correct,houses:were sold"
).split(",")  # fmt: skip
MEASURES = (
    "wall:metres:high:height,lake:metres:deep:depth,road:kilometres:long:length,rope:metres:long:length,"
    "table:centimetres:wide:width,film:minutes:long:length,hill:metres:high:height,well:metres:deep:depth"
).split(",")  # fmt: skip
COUNTS = (
    ("The course lasts {n} weeks.", "The course takes {n} weeks."),
    ("The box weighs {n} kilograms.", "The box has a weight of {n} kilograms."),
    ("Entry costs {n} dollars.", "The price of entry is {n} dollars."),
    ("The hall holds {n} people.", "There is room for {n} people in the hall."),
    ("The guarantee runs for {n} months.", "The guarantee is valid for {n} months."),
    ("The shop opened in 19{n}.", "The shop's opening year is 19{n}."),
    ("Sales rose by {n} percent.", "There was an increase in sales of {n} percent."),
    ("The team has {n} players.", "There are {n} players in the team."),
    ("Each user may store {n} files.", "A user can keep {n} files."),
)


def roles(rng: random.Random) -> Plain:
    """Who did what to whom: the passive or converse says the same, the exchange of the two does not."""
    kind, when = rng.random(), ""
    if kind < 0.3:
        a, b = (f"the {part}" for part in rng.sample(PARTS, 2))
        active, participle = rng.choice(PART_VERBS).split(":")
        passive = f"is {participle}"
    elif kind < 0.65:
        a, b = _two(rng)
        active = rng.choice(PEOPLE_VERBS)
        passive = f"was {PARTICIPLES.get(active, active)} by"
        when = rng.choice(["", "", f" in {rng.randint(1900, 2024)}", " yesterday", " last week"])
    else:
        a, b = _two(rng)
        active, passive = rng.sample(rng.choice(CONVERSE), 2)
    said, same = f"{_upper(a)} {active} {b}{when}.", f"{_upper(b)} {passive} {a}."
    return Plain(said, [same, said], [f"{_upper(b)} {active} {a}{when}.", f"{_upper(a)} {passive} {b}."])


def abilities(rng: random.Random) -> Plain:
    """What a group can and cannot do."""
    group = rng.choice(GROUPS)
    can, cannot = rng.sample(ACTIONS, 2)
    evidence = rng.choice(
        [
            f"{_upper(group)} can {can} but cannot {cannot}.",
            f"{_upper(group)} may {can}, but they may not {cannot}.",
            f"{_upper(group)} cannot {cannot}. They can {can}.",
            f"While {group} are able to {can}, they are not allowed to {cannot}.",
        ]
    )
    return Plain(
        evidence,
        [
            f"{_upper(group)} can {can}.",
            f"{_upper(group)} cannot {cannot}.",
            f"{_upper(group)} are not able to {cannot}.",
        ],
        [f"{_upper(group)} can {cannot}.", f"{_upper(group)} cannot {can}.", f"{_upper(group)} are able to {cannot}."],
    )


def negations(rng: random.Random) -> Plain:
    """A statement with "not", "never", "no", "failed to" or an antonym."""
    return rng.choice((_does, _is, _never, _failed))(rng)


def _does(rng: random.Random) -> Plain:
    subject, (does, affirmed) = rng.choice(SUBJECTS), rng.choice(DOES).split(":")
    verb, rest = does.split(" ", 1)
    yes = f"The {subject} {affirmed}."
    no = rng.choice(
        [f"The {subject} does not {does}.", f"The {subject} doesn't {does}.", f"The {subject} never {affirmed}."]
    )
    if rng.random() < 0.5:
        return Plain(no, [f"The {subject} does not {does}.", f"It is not true that the {subject} {affirmed}."], [yes])
    return Plain(yes, [f"The {subject} does {verb} {rest}."], [f"The {subject} does not {does}.", no])


def _is(rng: random.Random) -> Plain:
    noun, pair = rng.choice(NOUNS), rng.choice(STATES).split(":")
    state, other = rng.sample(pair, 2)
    if rng.random() < 0.4:
        return Plain(f"The {noun} is not {state}.", [f"The {noun} isn't {state}."], [f"The {noun} is {state}."])
    return Plain(
        f"The {noun} is {state}.",
        [f"The {noun} is not {other}."],
        [f"The {noun} is {other}.", f"The {noun} is not {state}."],
    )


def _never(rng: random.Random) -> Plain:
    who, what = f"{rng.choice(PEOPLE)}", rng.choice(DONE)
    if rng.random() < 0.6:
        return Plain(f"{who} has never {what}.", [f"{who} has not {what}."], [f"{who} has {what}."])
    return Plain(
        f"{who} has {what}.",
        [f"{who} has {what} at some time."],
        [f"{who} has never {what}.", f"{who} has not {what}."],
    )


def _failed(rng: random.Random) -> Plain:
    who, (act, past) = f"The {rng.choice(THINGS)}", rng.choice(FAILED).split(":")
    if rng.random() < 0.6:
        how = rng.choice(["failed to", "refused to", "did not", "was unable to"])
        return Plain(f"{who} {how} {act}.", [f"{who} did not {act}."], [f"{who} {past}.", f"{who} managed to {act}."])
    return Plain(f"{who} {past}.", [f"{who} managed to {act}."], [f"{who} failed to {act}.", f"{who} did not {act}."])


def quantities(rng: random.Random) -> Plain:
    """How many of a group."""
    group, did = rng.choice(GROUP_DID).split(":")
    every = [f"All of the {group} {did}.", f"All {group} {did}.", f"All the {group} {did}, without exception."]
    none = [f"None of the {group} {did}.", f"No {group} {did}.", f"Not one of the {group} {did}."]
    most = [
        f"Most of the {group} {did}.",
        f"The majority of the {group} {did}.",
        f"More than half of the {group} {did}.",
    ]
    few = [f"Few of the {group} {did}.", f"Hardly any {group} {did}.", f"Only a small part of the {group} {did}."]
    some = [f"Some of the {group} {did}.", f"Part of the {group} {did}.", f"A number of {group} {did}."]
    kind = rng.randrange(6)
    if kind < 5:
        level = (every, none, most, few, some)[kind]
        against = {0: none + few, 1: every + most + some, 2: few + none, 3: most + every, 4: none}[kind]
        said, same = rng.sample(level, 2)
        return Plain(said, [same], rng.sample(against, 2))
    number = rng.randint(3, 60)
    least = rng.random() < 0.5
    return Plain(
        f"At {'least' if least else 'most'} {number} {group} {did}.",
        [f"{number} or {'more' if least else 'fewer'} {group} {did}."],
        [
            f"{'Fewer' if least else 'More'} than {number} {group} {did}.",
            f"{'None of the' if least else number * 3} {group} {did}.",
        ],
    )


def exclusives(rng: random.Random) -> Plain:
    """What only one group can do, and what always or never happens."""
    one, other = rng.sample(GROUPS, 2)
    act = rng.choice(ACTIONS)
    kind = rng.random()
    if kind < 0.5:
        return Plain(
            f"Only {one} can {act}.",
            [f"{_upper(one)} can {act}.", f"{_upper(other)} cannot {act}."],
            [f"Everyone can {act}.", f"{_upper(other)} can {act}.", f"{_upper(one)} cannot {act}."],
        )
    always, never = rng.sample(
        [
            (f"{_upper(one)} always {act}.", f"Whenever possible, {one} {act}."),
            (f"{_upper(one)} never {act}.", f"At no time do {one} {act}."),
        ],
        2,
    )
    return Plain(always[0], [always[1]], [never[0], never[1]])


def numbers(rng: random.Random) -> Plain:
    """A number, and another one."""
    number = rng.randint(11, 99)
    other = rng.choice([n for n in (number + 1, number - 3, number + 10, number - 20, 99 - number) if 10 < n < 100])
    if rng.random() < 0.4:
        noun, unit, adjective, measure = rng.choice(MEASURES).split(":")
        said = f"The {noun} is {{n}} {unit} {adjective}."
        same = f"The {measure} of the {noun} is {{n}} {unit}."
    else:
        said, same = rng.choice(COUNTS)
    return Plain(said.format(n=number), [same.format(n=number)], [one.format(n=other) for one in (said, same)])


KINDS: tuple[Callable[[random.Random], Plain], ...] = (
    roles, roles, roles, abilities, negations, negations, quantities, exclusives, numbers,
)  # fmt: skip


def plain_claims(number: int, rng: random.Random) -> Iterator[Record]:
    """Records of one to four statements in any order, with claims about some of them and about none of them."""
    for _ in range(number):
        facts = [rng.choice(KINDS)(rng) for _ in range(rng.choice((1, 1, 1, 2, 3, 4)))]
        claims = []
        for fact in facts[:2]:
            for label, told in (("refuted", fact.refuted), ("supported", fact.supported)):
                chosen = rng.sample(told, min(2, len(told)))
                claims += [{"hypothesis": claim, "label": label} for claim in chosen]
        if rng.random() < 0.3:
            claims.append({"hypothesis": rng.choice(rng.choice(KINDS)(rng).supported), "label": "nei"})
        rng.shuffle(claims)
        shown = [fact.evidence for fact in facts]
        rng.shuffle(shown)
        yield claims_record(" ".join(shown), claims)


def _two(rng: random.Random) -> tuple[str, str]:
    """Two names of one sort."""
    sort = rng.random()
    if sort < 0.35:
        first, second = rng.sample(PEOPLE, 2)
    elif sort < 0.5:
        first, second = (f"{name} {rng.choice(SURNAMES)}" for name in rng.sample(PEOPLE, 2))
    elif sort < 0.65:
        first, second = rng.sample(FIRMS, 2)
    elif sort < 0.75:
        first, second = rng.sample(PLACES, 2)
    else:
        first, second = (f"the {name}" for name in rng.sample(THINGS, 2))
    return first, second


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
