"""Ratings that a reply gives in a sentence and without a label before them.

A sentence ties a number to the answer by a verb (``I would give it a 5``, ``the answer is a 3``),
by the rater's own label in mid-sentence (``so my rating is 5``), by the upper end of the scale
(``4 of 7``), or by the word for a point, where it is a grade as well (Chinese, Japanese, Korean).
"""

from __future__ import annotations

import re

from agents.numbers import ANY, FIRST, FLAGS, LABEL, OF, UNIT

_ANSWER = (
    r"(?:answer|draft|reply|response|text|comment|post|explanation|advice|suggestion|recipe|letter"
    r"|message|submission|it|this|that|this one)"
)
_THE = r"(?:(?:the|this|that|your|given|whole|entire|above) )*"
_FREELY = r"(?:[a-z]+ly |just |also |still |even |so |thus |therefore |overall,? |then )*"
_ADJECTIVE = (
    r"(?:solid|strong|clear|full|fair|good|decent|low|high|firm|generous|perfect|respectable|plain"
    r"|straightforward|(?:highest|lowest|best|worst)(?: possible)?|weak|modest|middling"
    r"|well-deserved|[a-z]+ly)"
)
_A = (
    rf"(?:(?:an? |the )?(?:{_ADJECTIVE},? )*(?:(?:final |overall |numerical )*(?:{LABEL}|number)"
    rf"(?: of|:|,)? )?(?:an? )?(?:{_ADJECTIVE},? )*)"
)
_TO = (
    rf"(?:(?:(?:for |to |on )?{_THE}{_ANSWER}|overall|here|that|as|at|with|is|to be|deserves|gets"
    rf"|worth)[,:]? )*"
)
_CLAUSE = (
    r"(?:^|(?<=[.!?,;:\n)\u2013\u2014-])[ \t]*|(?<=\n)[ \t]*"
    r"|\bso |\band |\bthat |\bthus |\btherefore |\bhence )"
)
_THINK = (
    rf"(?:(?:in my (?:opinion|view)|to me|overall|all in all|on balance|in short|in sum"
    rf"|taken together),? )?"
    rf"(?:i {_FREELY}(?:think|believe|feel|find|guess|say|(?:would|'d) say|conclude)(?: that)?,? )?"
)
_SENTENCES = re.compile(
    rf"(?:{_CLAUSE}|(?<=[a-z] )(?=i\b))(?:"
    rf"{_THINK}i(?:'d| would|'ll| will| can| can only|'m|'m going to| am going to"
    rf"| have to)?(?: have to| like to"
    rf"| like| going to)? {_FREELY}(?:rate|score|grade|give|giving|assign"
    r"|award|say|choose|pick|go with|settle on|settle for|put|call|consider|judge|evaluate|assess"
    r"|mark|place)"
    rf" {_TO}{_A}"
    rf"|{_THINK}{_THE}{_ANSWER} {_FREELY}(?:would )?{_FREELY}(?:deserves?|gets?|merits?|earns?"
    rf"|receives?|scores?|rates?"
    rf"|warrants?|(?:is|be) (?:worth|rated)(?: at| as)?) {_A}"
    rf"|{_THINK}(?:{_THE}{_ANSWER} {_FREELY}(?:is|would be|comes out as)|(?:it|that|this)'s"
    rf"|overall,?) {_FREELY}(?:an? )(?:{_ADJECTIVE},? )*"
    rf"|(?:[^.!?\n]{{0,80}}?\b)?my (?:(?:final|overall|own|personal|honest|total"
    rf"|actual) )*(?:{LABEL})"
    rf"(?: (?:for|of) {_THE}{_ANSWER})? ?(?:is|would be|stands at|remains|:|=|,) ?{_A}"
    rf"|{_THINK}(?:an? )?(?={ANY}(?: out of \d+)? (?:is|seems|feels) (?:fair|right|appropriate"
    rf"|fitting|justified)\b)"
    rf"|[^.!?:\n]{{0,60}}\bfor me: (?:an? )?"
    rf"|{_THINK}an? (?:{LABEL}) of |\Aan? (?:{_ADJECTIVE},? )*"
    rf")(?={ANY})",
    FLAGS,
)
"""In English: a verb of rating, or the answer with what it deserves."""

_VERBS = (
    r"gebe|vergebe|bewerte|benote|gäbe|würde"
    r"|donne|donnerais|mets|mettrais|attribue|attribuerais|noterais"
    r"|doy|daría|pongo|pondría|otorgo|otorgaría|asigno|califico|calificaría"
    r"|dou|daria|atribuo|atribuiria|avalio"
    r"|darei|assegno|assegnerei|attribuisco|valuto|(?:gli|le) do|do(?= un)"
    r"|ik geef|ik zou|jag ger|jag skulle ge|jeg giver|jeg gir|jeg ville give"
    r"|ставлю|поставлю|я поставил[аи]?|я бы поставил[аи]?|поставил[аи]? бы|даю|дам|дал[аи]? бы"
    r"|оцениваю|оценил[аи]? бы"
    r"|бы оценил[аи]?"
    r"|daję|dałbym|dałabym|oceniam|wystawiam|saya (?:memberi|memberikan|beri|menilai)|tôi (?:cho"
    r"|chấm|đánh giá)"
    r"|dau|aș da|acord"
)
_OTHER_WORDS = re.compile(
    rf"{_CLAUSE}(?:(?!(?:und|dass|que|che|что)\b)[^\W\d_]+ ){{0,4}}?(?:j['’]"
    rf"|l['’])?(?:{_VERBS})(?: (?!(?:dass|que|che|что|schulnote)\b)[^\W\d_]+){{0,6}}? (?=\d)",
    FLAGS,
)
"""In other languages: `I give`, the answer in a few words, the number."""

_POINT = re.compile(
    rf"\A(?=(?:{ANY})[ \t]*(?:点です|점입니다))|"
    r"(?:^|[\n:。！!.,，])[^\d\n:。，,「『“\"]{0,30}?(?:[打给給评評值应應得はをに은는에이을]|です)"
    rf"[^\d\n:。，,「『“\"第]{{0,12}}?(?=(?:{ANY})[ \t]*(?:分|点|점)"
    r"[ \t]*(?:$|[\n。，,、;:.!)]|です|と(?:し|評|す|な)|を|だ|입니다|을|를|이|으로|吧|啊|\())",
    re.MULTILINE,
)
_PAIR = re.compile(
    rf"(?<![\w.,/$€£#+-])(?={ANY}[ \t]*{UNIT}?[ \t]*{OF}[ \t]*{ANY})"
    rf"|(?<![\d.,/])(?={ANY}[ \t]*{FIRST}[^\d\n。]{{0,8}}{ANY})",
    re.I,
)


def places(line: str) -> list[tuple[int, int, bool]]:
    """Where sentences give a rating: start, place of the number, whether the rater speaks."""
    return [
        *((found.start(), found.end(), True) for found in _SENTENCES.finditer(line)),
        *((found.start(), found.end(), True) for found in _OTHER_WORDS.finditer(line)),
        *((found.start(), found.end(), False) for found in _POINT.finditer(line)),
    ]


def pairs(line: str) -> list[int]:
    """Where a number stands together with an upper end."""
    return [found.start() for found in _PAIR.finditer(line)]


_SENTENCE_END = re.compile(r"[.!?;](?=\s|$)|[\n。！？]")
_CLAUSE_END = re.compile(r"[,;:–—、，]|[-](?= )")
_QUESTION = ("?", "？")
_HEDGE = re.compile(
    r"(?:\b(?:about|around|roughly|almost|nearly|maybe|perhaps|possibly|probably|than|least|most|up"
    r" to|between|or|over|under|above|below|not|near|circa|ca\.|etwa|fast|ungefähr|knapp|environ"
    r"|presque|casi"
    r"|quasi|около|почти|примерно|entre|zwischen|mellan|между)(?: an?| eine?[rn]?| une?| una?| um"
    r"| uma)?|[约~<>≥≤±])[ \t]*$",
    re.I,
)
_NEGATED = re.compile(
    r"(?:n['\u2019]t|\b(?:no|not|never|cannot|neither|nor|nicht|kein\w*|nie|niemals|ne|pas|non"
    r"|nunca"
    r"|не|нет|inte|ikke|niet|nem|tidak|không)\b|不|没|沒|ない|않|아니|नहीं)",
    re.I,
)
_CONDITION = re.compile(
    r"\b(?:if(?! i (?:had|have|must|need) )|unless|would have|could|might|had(?! to choose| to give"
    r"| to pick| to say| to rate)|otherwise|were|provided|wenn|falls|sonst|hätte"
    r"|könnte"
    r"|si|se|aurait|hubiera|podría|se fosse|если|als het|om den|jika|nếu|jeśli|gdyby|eğer)\b"
    r"|如果|要是|もし|たら|れば|만약|अगर|यदि|لو |إذا|اگر",
    re.I,
)
_OTHERS = re.compile(
    r"\b(?:reviewers?|critics?|users?|others|people"
    r"|authors?|writers?|colleagues?|friends?|neighbou?rs?"
    r"|teachers?|he|she|they|someone|somebody|everyone|who|which|previous\w*|earlier|last"
    r"|films?|movies?"
    r"|usted|vous|you|couvre\w*|cubre\w*|cobre\w*|copre\w*|nennt|enthält|cita|menciona|mentionne"
    r"|называет|books?|chapters?|steps?|days?|pages?|parts?|versions?|lessons?|episodes?|hotels?"
    r"|restaurants?|products?|claims?|says|said|demands?|asks?|asked|example|format"
    r"|reseñ\w*|crític\w*|kritik\w*|autor\w*|auteur\w*|nutzer\w*|leser\w*|usuari\w*|utilisateur\w*"
    r"|рецензент\w*|критик\w*|автор\w*|пользовател\w*|фильм\w*)\b"
    r"|评论|用户|作者|网友|レビュ|ユーザ|著者|筆者|사용자|저자|리뷰|映画|电影|영화|他|她|老师|老師|朋友|友人|친구|先生|問題は|问题|문제는",
    re.I,
)
_AFTERWARDS = re.compile(
    r"\b(?:if|unless|except|but only|in (?:tone|style|clarity|accuracy)|wenn|falls|sofern|si|если"
    r"|jeśli|eğer)\b|如果",
    re.I,
)
_MAYBE = re.compile(
    r"\b(?:maybe|perhaps|possibly|vielleicht|peut-être|quizás?|tal vez|talvez|forse|может быть"
    r"|возможно|misschien"
    r"|kanske|może|belki|mungkin|có lẽ)\b|おそらく|たぶん|也许|可能|大概|아마|ربما|शायद",
    re.I,
)
_ELSE = re.compile(
    r"\b(?:confiden\w+|certainty|sure am i|likelihood|probability|difficulty|of the (?:game|match)"
    r"|for (?:example|instance)|example:|e\.g|suppose"
    r"|assum\w+|imagine|let's say|pretend|z\. ?b|par exemple|por ejemplo|zum beispiel|например)\b"
    r"|=[ \t]*$|例えば|比如|例如|예를 들",
    re.I,
)
_DENIED = re.compile(r"\s*(?:이|가|では|じゃ)?\s*(?:아니|아닙|ない|なく|ありません)")
_WITH = re.compile(r"\b(?:with|without|given|assuming)\b", re.I)
_AND = re.compile(
    r"^(?:(?:so|and|thus|hence|therefore|overall|in total|that is|i\.e\.|an?|is|=) )+", re.I
)
_ABOUT = re.compile(
    rf"\b(?:{LABEL}|{_ANSWER}|overall|total|result|conclusion|opinion|final\w*|points|punkte"
    rf"|puntos|pontos|punti|judge?ment|assessment)\b",
    re.I,
)
_RATER = re.compile(
    rf"\b(?:i|me|my (?:{LABEL}|opinion|view|vote))\b"
    rf"|^{_THE}{_ANSWER} {_FREELY}(?:is(?= )|gets?|deserves?|earns?|merits?|receives?|scores?"
    rf"|rates?"
    r"|warrants?|would be|comes out)\b"
    rf"|^(?:overall|total|conclusion)\b|^{_FREELY}(?:{LABEL})(?! of)\b",
    re.I,
)
_RATER_ELSEWHERE = re.compile(
    rf"\b(?:ich|mir|je|yo|eu|io|ik|jag|jeg|minä|я|ben|saya|tôi|rated|scored|graded)\b|{LABEL}|मैं"
    rf"|আমি|أعطي|أمنح|أقيم|من |ให้|נותן|我|私|僕|저|나는"
    r"|\b(?:antwort|antwoord|svar|réponse|respuesta|resposta|risposta|răspuns|ответ|відповідь"
    r"|odpowied|odpověď"
    r"|cevap|cevab|jawaban|câu trả lời|vastaus|válasz|απάντηση)"
    r"|回答|答案|回复|답변|대답|उत्तर|जवाब|উত্তর|پاسخ|جواب|إجابة|الإجابة|תשובה|คำตอบ",
    re.I,
)
_ENGLISH = re.compile(
    r"\b(?:the|is|are|and|of|it|its|this|that|with|for|gets|an|to|at|in|on|use|open|see|has"
    r"|covers?)\b",
    re.I,
)
_BECAUSE = re.compile(
    r"\b(?:because|since|as|weil|denn|car|porque|pues|pois|perché|потому|omdat)\b", re.I
)


def is_sure(line: str, start: int, place: int, end: int, speaks: bool) -> bool:
    """Whether a sentence asserts its number: no question, condition, negation, nobody else's."""
    begins = max((found.end() for found in _SENTENCE_END.finditer(line, 0, place)), default=0)
    stop = _SENTENCE_END.search(line, end)
    before = line[begins:place]
    after = line[end : stop.start() if stop else None]
    clause = _CLAUSE_END.split(before)[-1]
    if stop and stop[0] in _QUESTION:
        return False
    if _HEDGE.search(before) or _NEGATED.search(clause) or _CONDITION.search(before):
        return False
    if _AFTERWARDS.search(_BECAUSE.split(after, maxsplit=1)[0]):
        return False
    if _MAYBE.search(before) or _ELSE.search(line[max(0, begins - 10) : place]):
        return False
    if _DENIED.match(after):
        return False
    if "would be" in line[start:place] and _WITH.search(before):
        return False
    return speaks or (
        not _OTHERS.search(before + " ; " + _CLAUSE_END.split(after)[0]) and _is_of_answer(before)
    )


def _is_of_answer(before: str) -> bool:
    """Whether the words before a number and its upper end are about the answer as a whole."""
    *earlier, clause = re.split(r"[,;(\u3001\u2013\u2014]|:(?=\s)|-(?=\s)", before)
    clause = _AND.sub("", clause.strip() + " ").strip()
    if not clause:
        title = earlier[-1].strip() if earlier else ""
        short = len(title.split()) < 3 and before.rstrip().endswith(":")
        named = _ABOUT.search(title) or not title
        counted = before.rstrip().endswith("(") and re.search(r"[a-z]s$", title)
        return bool(named or not short) and not counted
    return bool((_RATER if _ENGLISH.search(clause) else _RATER_ELSEWHERE).search(clause))
