"""Sort a support mailbox: every message becomes a typed ticket in the queue of the team that handles it.

    llmflow demo                                                       # all of it, with what it took
    python triage_inbox.py inbox.mbox                                  # the same as a program of your own
    llmflow graph triage_inbox.py:triage                               # what depends on what

The model is the small one that comes with llmflow-local: it needs no key, runs in this process, and is weak. Each step
asks it first without holding it to the schema, so that malformed answers really happen: broken JSON, texts that are too
long, answers that never end. llmflow mends what can be mended, asks again with the validation error, and falls back to
the constrained model when that does not help. Another model is one option away: `llmflow demo --model openai/gpt-5-mini`.
"""

from __future__ import annotations

import email.policy
import mailbox
import re
import sys
from contextlib import closing
from datetime import datetime, timedelta
from decimal import Decimal
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from llmflow import Fallback, Model, Repair, flow, or_else, prompt, step, switch, task

FREE = Model("local/smollm2", constrained=False)
CONSTRAINED = Fallback("local/smollm2")

Topic = Literal["billing", "bug", "account", "sales"]

LONGEST_SUMMARY = 160
LONGEST_OPENING = 160  # what a small model reads without losing the thread
SHORTEST_WORD = 4  # that says anything
SHARED_WORDS = 2  # of a summary with its message
TYPOGRAPHY = str.maketrans({"‑": "-", "—": "-", "’": "'", "“": '"', "”": '"', "…": "...", "🔐": "", "🙏": ""})  # noqa: RUF001  # what is replaced


# -- what comes in, what goes out --------------------------------------------------------------------------------------


class Mail(BaseModel):
    """One message of the mailbox."""

    subject: str
    received: datetime
    body: str


class Request(BaseModel):
    """Who wants what, in the customer's own words."""

    customer: str = Field(min_length=2, max_length=40)
    quote: str = Field(min_length=8, max_length=100)


class Summary(BaseModel):
    """A line for the list of open tickets."""

    text: str = Field(min_length=8, max_length=LONGEST_SUMMARY)


class Ticket(BaseModel):
    """What every queue gets."""

    queue: Topic
    customer: str
    subject: str
    summary: str
    quote: str | None = Field(description="None when the model's words are not in the message")
    reply_by: datetime


class BillingTicket(Ticket):
    """For the team that can refund."""

    amounts: list[Decimal]


class BugTicket(Ticket):
    """For the team that can repair."""

    codes: list[str]


class SalesTicket(Ticket):
    """For the team that can make an offer."""

    seats: int | None


# -- plain Python: what needs no model ---------------------------------------------------------------------------------


@task
def read_mailbox(path: Path) -> list[Mail]:
    """Read an mbox file, whatever encodings its messages are in."""
    parser = BytesParser(policy=email.policy.default)
    with closing(mailbox.mbox(path, create=False)) as box:
        return [read_mail(parser.parsebytes(raw.as_bytes())) for raw in box]


def read_mail(message: EmailMessage) -> Mail:
    part = message.get_body(("plain",))
    text = part.get_content() if part is not None else ""
    return Mail(subject=str(message["Subject"]).strip(), received=message["Date"].datetime, body=text.strip())


@task
def shorten(mail: Mail) -> str:
    """Keep what a small model can read: the subject, how the message begins, and who signed it."""
    lines = own_lines(mail)
    *opening, signature = lines or [""]
    return f"{mail.subject}. {' '.join(opening)[:LONGEST_OPENING]}\n{signature}".translate(TYPOGRAPHY)


CLUES: dict[Topic, str] = {
    "billing": "charged|billed|invoice|refund|payment|VAT",
    "bug": "crash|error|white|black|nothing|unreadable",
    "account": "log in|login|password|my account|admin",
    "sales": "quote|price|buy|seats|discount|upgrade|demo",
}


def own_lines(mail: Mail) -> list[str]:
    return [line.strip() for line in mail.body.splitlines() if line.strip() and not line.startswith(">")]


@task
def find_clues(mail: Mail) -> str:
    """List the telling words, so that the model has something to hold on to."""
    text = " ".join([mail.subject, *own_lines(mail)])
    found = {topic: re.findall(words, text, re.IGNORECASE) for topic, words in CLUES.items()}
    return "; ".join(f"{topic}: {', '.join(dict.fromkeys(words))}" for topic, words in found.items() if words)


# -- what the model does -----------------------------------------------------------------------------------------------


@step(
    FREE,
    CONSTRAINED,
    system="You sort support messages into billing, bug, account or sales. Reply with JSON only.",
    params={"max_tokens": 20},
    examples=[
        (("The receipt is wrong, I was charged too much.\nAnn Lee", "billing: charged"), "billing"),
        (("The page stays white and does not load.\nJohn Smith", "bug: white"), "bug"),
        (("I forgot my password and cannot log in.\nEva Wolf", "account: password, log in"), "account"),
        (("Please send a quote for 10 people.\nOmar Aziz", "sales: quote"), "sales"),
    ],
)
def classify(text: str, clues: str) -> Topic:
    return prompt(f"{text}\n{clues}")


def signed(request: Request, inputs: dict[str, Any]) -> None:
    """Refuse a customer who is not in the message."""
    if request.customer not in inputs["text"]:
        msg = f"customer: {request.customer!r} does not occur in the message; copy the name from its last line"
        raise ValueError(msg)


@step(
    FREE,
    CONSTRAINED,
    system="You copy one sentence and the name from the message, word for word. Reply with JSON only.",
    params={"max_tokens": 80},
    checks=[signed],
    examples=[
        (
            "Start page. Hello, the start page does not load since yesterday. I tried two browsers.\nAnn Lee",
            Request(customer="Ann Lee", quote="the start page does not load since yesterday"),
        ),
        (
            'Report. I can\'t open the report any more. It says "no rights".\nJohn Smith',
            Request(customer="John Smith", quote="I can't open the report any more"),
        ),
        (
            "Costs. Hi, could you tell me what the Team plan costs for ten people? Thank you.\nBest, Eva Wolf",
            Request(customer="Eva Wolf", quote="could you tell me what the Team plan costs for ten people"),
        ),
        (
            "Password. Please change my password. It was stolen.\nRegards, Omar Aziz",
            Request(customer="Omar Aziz", quote="Please change my password"),
        ),
    ],
)
def extract(text: str) -> Request:
    return prompt(text)


def about_the_message(summary: Summary, inputs: dict[str, Any]) -> None:
    """Refuse a summary that could stand under any message."""
    shared = set(words_of(summary.text).split()) & set(words_of(inputs["text"]).split())
    if sum(len(word) >= SHORTEST_WORD for word in shared) < SHARED_WORDS:
        raise ValueError("text: it has almost no word of the message; say what this customer wants")


@step(
    FREE,
    Repair(reasks=0),  # mend, but do not ask again: this model would say the same
    CONSTRAINED,
    system="You are a program that answers with JSON only.",
    params={"max_tokens": 60},
    checks=[about_the_message],
)
def summarise(text: str) -> Summary:
    return prompt(f'{text}\n\nSummarise the message above in one short sentence. Answer with JSON: {{"text": "..."}}')


@task
def subject_of(mail: Mail) -> Summary:
    """Take the customer's own subject, when no model has a better idea."""
    return Summary(text=f"Subject: {mail.subject}"[:LONGEST_SUMMARY])


# -- the tickets -------------------------------------------------------------------------------------------------------


def common(mail: Mail, request: Request, summary: Summary, *, hours: int) -> dict[str, Any]:
    return {
        "customer": request.customer,
        "subject": mail.subject,
        "summary": summary.text,
        "quote": request.quote if words_of(request.quote) in words_of(mail.body) else None,
        "reply_by": mail.received + timedelta(hours=hours),
    }


def words_of(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


@task
def to_billing(mail: Mail, request: Request, summary: Summary) -> BillingTicket:
    amounts = [Decimal(found.replace(",", "")) for found in re.findall(r"\$([\d,]+(?:\.\d+)?)", mail.body)]
    return BillingTicket(queue="billing", **common(mail, request, summary, hours=24), amounts=amounts)


@task
def to_engineering(mail: Mail, request: Request, summary: Summary) -> BugTicket:
    codes = re.findall(r"(?:error|version) [\d.]*\d", f"{mail.subject}\n{mail.body}", re.IGNORECASE)
    return BugTicket(queue="bug", **common(mail, request, summary, hours=8), codes=list(dict.fromkeys(codes)))


@task
def to_accounts(mail: Mail, request: Request, summary: Summary) -> Ticket:
    return Ticket(queue="account", **common(mail, request, summary, hours=4))


@task
def to_sales(mail: Mail, request: Request, summary: Summary) -> SalesTicket:
    seats = re.search(r"(\d+) (?:seats|people|users)", mail.body)
    return SalesTicket(
        queue="sales", **common(mail, request, summary, hours=48), seats=int(seats[1]) if seats else None
    )


# -- the flow ----------------------------------------------------------------------------------------------------------


@flow
async def triage(mail: Mail) -> BillingTicket | BugTicket | SalesTicket | Ticket:
    """Turn one message into a ticket. No step needs another's answer, so the three run side by side."""
    text = await shorten(mail)
    clues = await find_clues(mail)
    topic = await classify(text, clues)
    request = await extract(text)
    summary = await or_else(summarise(text), subject_of(mail))
    return await switch(
        topic,
        {
            "billing": to_billing(mail, request, summary),
            "bug": to_engineering(mail, request, summary),
            "account": to_accounts(mail, request, summary),
            "sales": to_sales(mail, request, summary),
        },
    )


@flow
async def triage_inbox(path: Path) -> list[BillingTicket | BugTicket | SalesTicket | Ticket]:
    """Turn a whole mailbox into tickets."""
    mails = await read_mailbox(path)
    return await triage.map(mails, concurrency=4)


if __name__ == "__main__":
    for ticket in triage_inbox.sync(Path(sys.argv[1])):
        print(ticket.model_dump_json())
