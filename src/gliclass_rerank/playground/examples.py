"""Initial contents of each tab."""

QUERY = "how many people live in Berlin?"
PASSAGES = """\
Paris is the capital of France. The Louvre, on the right bank of the Seine, is its most visited museum.

Munich lies on the river Isar, north of the Alps. It has about 1.5 million inhabitants.

Berlin was first mentioned in a document in 1237. Its name probably comes from a Slavic word for swamp.

The Berlin marathon takes place every September. About 45,000 runners take part in it.

A third of the city's area is forest, parks and lakes. With 3.7 million inhabitants, Berlin is Germany's largest city. \
It is also one of the federal states."""

ROUTES = """\
billing: invoices, payments and refunds
    why was my card charged?
    I need a copy of my invoice
technical support: errors, crashes and login problems
    the program stops with an error
    my password does not work
shipping: delivery and returns of parcels
    where is my parcel?
    how do I send it back?"""
QUERIES = """\
my card was charged twice this month
the app crashes when I open a file
what will the weather be like tomorrow?"""

ANSWER = "The Danube rises in Germany. It flows into the Black Sea. It is 500 kilometres long. Its water is green."
EVIDENCE = """\
The Danube rises in the Black Forest in Germany.

After 2,850 kilometres and ten countries the Danube flows into the Black Sea."""

TEXT = "The central bank raised interest rates for the third time this year, and shares fell."
LABELS = """\
sport
    football
    tennis
economy
    interest rates
    stock market
    trade
food
    recipe
    restaurant review"""

STATE = "I was charged twice for my March invoice, and nobody answers my mails. Please fix this today!"
QUESTIONS = """\
Is it urgent?
Which team?
    billing: invoices, payments and refunds
    technical: errors and crashes
How angry is the writer?
    calm < annoyed < furious"""
