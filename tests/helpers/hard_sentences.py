"""Texts whose sentences are hard to tell, by language: "¦" stands where one sentence ends and the next begins."""

from __future__ import annotations

ENGLISH = """
Dr. Smith met Mr. Jones at 5 p.m. on Jan. 5. ¦He left.
The U.S. Government said no. ¦It won.
He moved to the U.S. ¦It was cold there.
See Fig. 3 and Eq. 4. ¦They differ, e.g. in size, i.e. width.
See Eq. 4 for details.
See Eqs. 4 and 5, Figs. 2 and 3, and Sec. 7 for more. ¦Ch. 2 has the rest.
It cost approx. 5 euros. ¦Version 2.0.1 is out.
The stone weighs approx. 5 kg.
It lasted ca. 30 years, from c. 1200 to max. 1230.
No. 5 is best. ¦It beats No. 6.
It is in Vol. 3 of the series, pp. 12 and 13.
Yan et al. [2004] analysed it.
Yan et al. (2004) analysed it. ¦Others did not.
Smith et al. Showed it first.
It runs on ASP.NET today.
We use Node.js and Vue.js. ¦They are free.
It opens at 9 a.m. Monday.
It opens at 9 a.m. ¦The doors close at noon.
The train leaves at 6 p.m. EST on weekdays.
Use `a.b()`. ¦Then call `c.d`.
Set `x = 1. y = 2` in the file. ¦Save it.
He said "Stop." ¦Then he left.
"It is late," he said. ¦"We must go."
Is it true? ¦Yes! ¦(It is.) ¦Good.
It was built in 1889 (why?) and opened in 1890.
Yahoo! was founded in 1994.
Prices start at $1.50. ¦St. Louis is big.
Acme Inc. is larger than Widget Co. Ltd. today.
Apple Inc. was founded in 1976. ¦J. R. R. Tolkien wrote it.
George W. Bush met John F. Kennedy Jr. in Washington, D.C. in 1990.
Prof. Dr. A. Turing, Ph.D., lived. ¦M. Curie et al. found it.
Mt. Everest is 8,849 m high. ¦Ft. Worth is flat.
The company was founded in 1999.¦It grew.
The river is 2,850 km long. ¦The basin covers 801,463 sq. km of land.
Gen. Lee met Lt. Col. Brown and Sgt. Pepper. ¦Capt. Cook sailed.
He earned a B.A. from Yale and an M.Sc. from MIT.
It rained. ¦No. ¦It snowed.
Smith v. Jones was decided in 1954. ¦Cf. Brown v. Board of Education.
Mail bob@example.com. or see www.example.com today.
The file is config.yaml. ¦Open it.
The value of pi is 3.14159. ¦It is irrational.
Python 3. ¦11 tests passed.
The Eiffel Tower, est. 1889, is 330 m tall.
It was, as St. Augustine wrote, good... and then it ended.
Wait... ¦There is more.
We sell apples, pears, etc. ¦Prices vary.
We sell apples, pears, etc. and more.
Add 2 tbsp. sugar and 1 tsp. salt. ¦Stir.
The meeting is on Mon. Feb. 3 at 10. ¦Bring notes.
It is 5 ft. 3 in. tall and weighs 120 lbs. ¦That is light.
The law (Art. 5 para. 2) says so. ¦Art. 6 does not.
Vitamin C. ¦Vitamin D. ¦Both help.
Plan B. ¦Then we left.
Install the app. ¦A dialog opens.
Open the app. ¦I like it. ¦I paid the Gov. ¦He was in.
Users love the app. ¦A 2023 survey found it.
See App. B for details.
The population was 1.5 million in 2020. ¦Today it is 1.6 million.
I saw it at 3.30 p.m. ¦Nobody else did.
Do you know Ms. Wu? ¦She works at Wu & Co. in Hong Kong.
The U.K. and the E.U. agreed. ¦The U.N. did not.
In the U.S. Army he rose to Maj. Gen. in 1944.
iPhone sales fell. ¦iPad sales rose.
The answer is 42. ¦The question is unknown.
The text ends without a stop
""".strip().splitlines()

LISTS = """
There are three: ¦1. Paris is the capital of France. ¦2. Berlin is the capital of Germany. ¦3. Rome is old.
Do this: ¦1) open the lid; ¦2) press the button.
It has two parts. ¦1. The head is small. ¦2. The tail is long.
It ended in 1. ¦Then it began again.
""".strip().splitlines()

OTHERS = """
z.B. ist das so. ¦Das war Nr. 5 am 3. Mai. ¦Ende.
Der 3. Oktober ist ein Feiertag. ¦Er wird seit 1990 gefeiert.
Im 19. Jahrhundert wuchs die Stadt. ¦Sie hatte ca. 5000 Einwohner.
Dr. Müller wohnt in der Hauptstr. 5 bzw. in Berlin. ¦Er ist u.a. Arzt.
Friedrich II. regierte Preußen. ¦Er starb 1786.
Das kostet 3,50 Euro. ¦Das ist viel.
M. Dupont habite à Paris. ¦Mme. Curie y travaillait.
Voir p. 5 et fig. 3. ¦C'est tout.
Il est né le 3 mai 1920. ¦Il est mort en 1990.
El Sr. García llegó a las 5 p. m. al hotel. ¦Luego se fue.
これはペンです。¦それは本です。
他死了。¦真的吗？¦是的！
巴黎是法国的首都。¦柏林是德国的首都。
यह एक किताब है। ¦वह एक कलम है।
هل هذا صحيح؟ ¦نعم. ¦انتهى الأمر.
Париж — столица Франции. ¦Берлин — столица Германии.
""".strip().splitlines()


def parts(line: str) -> tuple[str, list[str]]:
    """The text, and its sentences."""
    return line.replace("¦", ""), [part.strip() for part in line.split("¦")]
