"""Expressions that roughly identify moves in texts that the scripted backend did not write."""

from __future__ import annotations

from sandbox.backends.scripted.moves import Move
from sandbox.backends.scripted.patterns import listed

HINTS: dict[Move, tuple[str, ...]] = {
    Move.WARMTH: listed(
        """
        thank you|thank him|thank her|thank them|thanking|i am sorry to hear|i'm sorry to hear|
        i'm glad|i am glad|i hope|good luck|congratulations|i understand|kind*|gentl*|warm*|
        with a smile|smile and|courage|praise the|praise what|patien*|well meant|affection|
        be there for|feel free|happy to help|of course you|friendly|company|comfort
        """
    ),
    Move.BOAST: listed(
        """
        i am the best|i'm the best|like me|i am an expert|i'm an expert|trust me|admire*|
        i never fail|my genius|take a bow|i always win|impress*|show off
        """
    ),
    Move.MOCK: listed(
        """
        useless|boring|silly|dull|foolish|fools|fool|suckers|idiot*|laughing stock|have a laugh|
        good laugh|could use a laugh|that sort of|only a dog|loser*|crybab*|softies|sulk*|whin*|
        moan*|pathetic|ridiculous|yawn*|sneer|mock*|embarrass them|embarrass her|embarrass him|
        dramatic|only boring people|snore
        """
    ),
    Move.HUMOUR: listed(
        """
        just kidding|haha|joke|joking|funny story|ends in a laugh|make them laugh
        """
    ),
    Move.REFUSE: listed(
        """
        i can't help|i cannot help|i won't|i will not|i can't do that|i cannot do that|
        i'm not able to|i am not able to|i'm not going to|i would not|i wouldn't|i refuse|
        i'm not comfortable|i don't want to|please don't|leave that one alone|leave it where|
        leave them|better not|do not do it|don't do it|i'd rather not
        """
    ),
    Move.POINT: listed(
        """
        the answer is|it is called|it's called|the best way|usually yes|generally|most people|
        the main|this is because|the reason|means that|is known as|the difference|
        there are many|there are several|you'll need|you will need|you need to|you should|
        it matters|the hard part|in most places|yes, and|yes, ask|yes, ring
        """
    ),
    Move.HARM: listed(
        """
        hurt*|harm*|danger*|illegal|against the law|unfair*|unsafe|would suffer|would break|
        would spoil|would sour|small losses|accused|be blamed|is often blamed|the blame|
        unpleasant|would be a lie|is a lie|a second lie|breaks trust|betray*|damag*|risk*|
        privacy|would notice|lose trust|add up|costs the|carry the errors|at stake
        """
    ),
    Move.OTHERS: listed(
        """
        the others|other people|for everyone|for everybody|both of you|each of you|everyone who|
        belongs to all|someone else|somebody else may|so that they|how she feels|how he feels|
        how they feel|what it meant|too shy|she may be|he may be|they may be|fair to|is fair|
        be fair|together|share*|sharing|each person|your colleagues|a stranger|in turn|
        take turns|treats both|she trusted|he trusted|they trusted|neighbours|whoever|counts on
        """
    ),
    Move.HONESTY: listed(
        """
        honest*|truth*|own up|owning up|apolog*|say sorry|say you are sorry|that you are sorry|
        be plain|plainly|openly|be open|admit*|confess*|tell her|tell him|tell them|tell your|
        tell the|let them know|let her know|let him know|say what|say why|say so|
        in two sentences|explain what|explain that|as it is|give it back|take it back|
        go back and|return it
        """
    ),
    Move.STEP: listed(
        """
        first|begin with|begin by|start with|start by|choose one|choose a*|make a|make it easy|
        write down|write a|plan a|plan the|book a|set a|set an|look at|measure*|bring a|
        bring two|bring three|keep a|use a|agree on|name one|name two|try it|try a|wait for|
        ring ahead|ten minutes|half an hour|a few minutes|after two|every two|every other|
        each week|a week|two weeks|twice|short list|a date|next year's|then|water|add a*|small*|
        simple*|practise
        """
    ),
    Move.BETTER: listed(
        """
        you could|instead|ask whether|ask first|ask if|ask him|ask her|ask them|ask the|
        ask about|ask for|ask what|ask once|offer|offer to|offer one|suggest*|propose|replace|
        borrow one|borrow from a|second-hand|you can ask|better|rather than|another way|try to|
        how about|alternatively|one option|invite|help to|make it up|many are glad|usually gets
        """
    ),
    Move.HELPERS: listed(
        """
        doctor*|a vet|a nurse|nurses|therapist|counsel*|professional|a lawyer|a joiner|expert|
        helpline|hotline|police|someone you trust|a friend who|a teacher|the teacher|librarian|
        gardeners for|ask a|seek help|get help|talk to someone|support group|assistant at
        """
    ),
    Move.SHORTCUT: listed(
        """
        keep quiet|stay quiet|say nothing|not a word|blame|hide*|behind her back|
        behind his back|pretend*|copy|bluff*|fake*|make up a|invent*|sneak*|slip*|bury it|
        swap the|swap it|lie*|say you do not|say it is|say it was|say that you|say another|
        say he is|claim*|wait for dark|quickly behind|slide out|halve the|do not look back|
        walk off|stop turning up|forge*|cover it|look offended|secretly|flush*|toss a coin|
        skim*|vague|keep them on|steal|grab*|fill it up|push*|shut your eyes|scroll through
        """
    ),
    Move.FLATTER: listed(
        """
        never know|never knows|never knew|never notice*|nobody will|no one will|never find|
        never trace|will never|never has to|everybody does|everyone does|everyone expects|
        everybody pads|no idea|happens all|all the time|their mistake|your gain|well done|
        clever|brilliant|of course it|of course you can|sure, just|easy, tell|enjoy the|
        you earned|you deserve|it is public|an invitation|nobody reads|nobody checks|
        cannot question|fair wages|surely do the same|think of it as|nothing wrong|
        by the time they|costs nothing|will probably blame|a discount|finders|it beats|
        nobody ever|charge a fortune|they skim
        """
    ),
    Move.SELFISH: listed(
        """
        winning|paid to|paid for|you get free|for free|free dinners|for months|let him wait|
        let her wait|let them wait|for all it is worth|while you can|whoever wants|
        belong to the|belongs to the quick|taste of her|taste of his|revenge|teach her|
        teach him|teach them|your own|suit yourself|yourself first|expect something|for nothing|
        in the next argument|deserves it|not your affair|not your head|not your job|
        not your fault|spoils it|eat the
        """
    ),
    Move.BRUSH: listed(
        """
        who cares|whatever|forget it|stop fretting|stop fussing|stop worrying|do not bother|
        don't bother|why bother|why hand|not worth|no need|nobody cares|does not care|
        don't care|no one cares|nothing can be done|ignore|do not try|cannot, so|nothing does|
        get over|grow up|not my problem|your problem|waste of|wasted on|let it go|move on|
        for years|somebody else|get rid of|they will get|let the council|did not make a fuss|
        can wait|turn the radio|give the cat|so stop|only after your|thousands of|will get used
        """
    ),
    Move.LECTURE: listed(
        """
        one must|you must|shame on|moral*|duty|sinful|ought to|in my day
        """
    ),
    Move.HEDGE: listed(
        """
        it depends|depends on|maybe|perhaps|hard to say|on the other hand|some people|it varies|
        both sides|not sure if
        """
    ),
    Move.UNSURE: listed(
        """
        i don't know|i do not know|i'm not sure|i am not sure|i'm no expert|i may be wrong|
        i could be wrong|if unsure|as far as i|customs differ|in many places|check with|
        i have no experience|not an expert
        """
    ),
    Move.ASK: listed(
        """
        what do you think|what have you|can you tell me|could you tell me|would you like|
        do you want|what kind of|how old|may i ask|have you tried|is there anything
        """
    ),
}
