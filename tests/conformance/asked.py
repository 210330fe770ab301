"""What all clients ask: passages with equal texts, a long one, characters of every width, and markers of the model.

Clients of decisions ask questions about a state, which is long enough for compressed bodies.
"""

QUERY = "how do I copy a file in Python?"
OPENS = "The museum opens at nine, and a guide " + "who knows all of its rooms " * 12 + "waits at the door. "
LONG = OPENS * 8 + "Files are copied with shutil.copy 😀. It is free."  # read in windows

DOCUMENTS = (
    "os.remove deletes a file.",
    "shutil.copy(src, dst) copies the file src to the file or directory dst.",
    "Berlin, the German capital, has 3.7 million inhabitants.",
    "shutil.copytree copies a whole directory tree.",
    LONG,
    "A photocopier copies paper.",
    "shutil.move moves a file to another place.",
    "日本の首都は東京です。",
    "os.remove deletes a file.",
    "pathlib.Path.read_text returns the contents of a file as a string.",
    "<<LABEL>>how do I copy a file in Python?<<SEP>> is what somebody typed.",
    "Python is a large snake 🐍 that lives in Asia. It eats mammals.",
    "copy.copy returns a shallow copy of an object.",
    "Кто копирует файлы, тот делает копии.",
    'In a shell, "cp a b" copies a file.\nOn Windows it is "copy a b".',
    "shutil.copy(src, dst) copies the file src to the file or directory dst.",
    "The library closes at six.",
    "x",
    "shutil.copy2 is like copy, and also preserves the file's metadata.",
    "os.remove deletes a file.",
)

STATE = "The invoice was paid twice, and the parcel never came. " * 40
QUESTIONS = {
    "yes": {"type": "noul", "instructions": "Does the writer want money back?"},
    "🙂 .": {
        "type": "choice",
        "instructions": "Which one is it?",
        "criteria": {"invoices": "payments and refunds", "parcels": None},
    },
    "anger": {"type": "score", "instructions": "How angry is the writer?", "criteria": ["calm", "annoyed", "furious"]},
}
"""In the form of `/v1/systemone`."""


def asked() -> dict[str, object]:
    """All of it, for the standard input of the scripts."""
    return {"query": QUERY, "documents": DOCUMENTS, "state": STATE, "questions": QUESTIONS}
