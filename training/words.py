"""Word pools from which the synthetic corpus is composed.

Words are drawn by position: adding, removing or moving one changes the corpus of every seed.
"""

# Running text is easier to read and to extend than lists of quoted words.
# ruff: noqa: SIM905

NAMES = """Ada Alan Alice Amir Ana Anders Anya Aoife Arjun Astrid Ben Bianca Boris Bruno Carla Carlos Chen
Chloe Clara Dana Daniel David Diego Dimitri Elena Elif Emil Emma Erik Eva Farah Felix Fiona Frank Freya Gabriel
Grace Greta Hana Hassan Helen Hugo Ibrahim Igor Ines Ingrid Ivan Jack Jana Jasmin Jean John Jonas Julia Kai Karen
Kenji Kofi Lars Laura Leila Leo Lina Linus Lucas Lucia Luis Maja Malik Marco Maria Mark Marta Mary Mateo Max Maya
Mehmet Mia Mila Mina Mohamed Nadia Naomi Nils Nina Noah Nora Olga Oliver Omar Oscar Pablo Paula Pavel Peter Petra
Priya Rafael Raj Rita Robert Rosa Ruth Sam Samira Sara Sasha Sofia Stefan Sven Tara Theo Thomas Tim Tom Uma Vera
Victor Wei Yara Yuki Yusuf Zara Zoe""".split()

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Portugal": "Lisbon",
    "England": "London",
    "Ireland": "Dublin",
    "Scotland": "Edinburgh",
    "Norway": "Oslo",
    "Sweden": "Stockholm",
    "Finland": "Helsinki",
    "Denmark": "Copenhagen",
    "Iceland": "Reykjavik",
    "Poland": "Warsaw",
    "Austria": "Vienna",
    "Hungary": "Budapest",
    "Greece": "Athens",
    "Turkey": "Ankara",
    "Russia": "Moscow",
    "Ukraine": "Kyiv",
    "Romania": "Bucharest",
    "Bulgaria": "Sofia",
    "Serbia": "Belgrade",
    "Croatia": "Zagreb",
    "Switzerland": "Bern",
    "Belgium": "Brussels",
    "the Netherlands": "Amsterdam",
    "Czechia": "Prague",
    "Slovakia": "Bratislava",
    "Slovenia": "Ljubljana",
    "Estonia": "Tallinn",
    "Latvia": "Riga",
    "Lithuania": "Vilnius",
    "Malta": "Valletta",
    "Japan": "Tokyo",
    "China": "Beijing",
    "India": "New Delhi",
    "South Korea": "Seoul",
    "Thailand": "Bangkok",
    "Vietnam": "Hanoi",
    "Indonesia": "Jakarta",
    "the Philippines": "Manila",
    "Mongolia": "Ulaanbaatar",
    "Nepal": "Kathmandu",
    "Iran": "Tehran",
    "Iraq": "Baghdad",
    "Egypt": "Cairo",
    "Kenya": "Nairobi",
    "Ethiopia": "Addis Ababa",
    "Ghana": "Accra",
    "Nigeria": "Abuja",
    "Morocco": "Rabat",
    "Senegal": "Dakar",
    "Canada": "Ottawa",
    "the United States": "Washington",
    "Mexico": "Mexico City",
    "Cuba": "Havana",
    "Brazil": "Brasilia",
    "Argentina": "Buenos Aires",
    "Chile": "Santiago",
    "Peru": "Lima",
    "Colombia": "Bogota",
    "Uruguay": "Montevideo",
    "Australia": "Canberra",
    "New Zealand": "Wellington",
}

CITIES = sorted(
    set(CAPITALS.values())
    | set(
        """Boston Chicago Dallas Denver Geneva Hamburg Istanbul Kyoto Lagos
Leeds Lyon Marseille Melbourne Miami Milan Mumbai Munich Naples Osaka Porto Seattle Shanghai Sydney Toronto Turin
Valencia Venice Zurich Toulouse Bergen Bristol Glasgow Austin""".split()
    )
    | {"New York", "San Francisco", "Hong Kong", "Los Angeles", "Cape Town", "San Francisco, CA", "Austin, TX"}
)

COLOURS = "red blue green yellow orange purple pink brown black white grey teal violet gold silver crimson".split()

ANIMALS = """ant badger bat bear beaver bee camel cat cheetah chicken cow crab crow deer dog dolphin donkey dragon
duck eagle elephant falcon fox frog giraffe goat goose gorilla hamster hare hawk hedgehog hippo horse iguana jaguar
kangaroo kitten koala lamb lion lizard llama lynx mole monkey moose mouse newt octopus otter owl panda parrot
penguin pig pony puppy rabbit raccoon rat robot salmon seal shark sheep snail snake spider squirrel swan tiger toad
turtle walrus whale wolf wombat yak zebra""".split()

FOODS = """pizza pasta rice soup bread cheese sushi tacos curry salad noodles pancakes chocolate apples bananas
cherries grapes mangoes peaches pears plums dumplings risotto falafel hummus tofu salmon lasagna paella ramen
waffles honey olives yoghurt""".split()

JOBS = """actor architect artist baker barber carpenter chef dentist designer doctor driver editor electrician
engineer farmer firefighter gardener judge lawyer librarian mechanic musician nurse painter pharmacist photographer
pilot plumber poet programmer sailor scientist singer surgeon tailor teacher translator vet waiter writer""".split()

ROLES = """astronaut bard butler captain chef coach detective dragon farmer gardener ghost guide historian king knight
librarian merchant monk pilot pirate poet prince princess professor queen robot sailor scientist teacher viking
wizard""".split()

HOBBIES = """baking chess climbing cooking cycling dancing drawing fishing gardening hiking juggling knitting
painting photography pottery reading running sailing singing skating skiing surfing swimming tennis writing""".split()

NOUNS = """apple arrow bag ball basket bell bench bird boat book bottle bowl box branch bread bridge brush bucket
button cake candle card carpet castle chair clock cloud coat coin comb cup curtain desk door drum engine feather
fence field flag flower forest fork garden gate glass glove guitar hammer harbour hat hill house island jacket jar
kettle key kite knife ladder lake lamp leaf letter lock map mirror moon mountain needle net notebook ocean paper
path pen pencil piano picture pillow plate pocket pond pot radio rain ring river road rock roof rope sail school
shadow shell shelf ship shoe shop sky snow soap sock spoon star stone storm street sugar sun table tent ticket
tower train tree tunnel umbrella valley vase village wall watch water wheel whistle wind window wood""".split()

ADJECTIVES = """bright brave calm clever cold cosy curious dark dusty eager fast gentle golden happy hidden honest
kind lazy little lonely loud lucky noisy old proud quiet quick round sad sharp shy silent silly sleepy slow small
soft strange strong sweet tall tiny warm wild wise young""".split()

VERBS = """build carry catch clean close count cut draw drop eat find fix follow give grow hear hide hold jump keep
learn leave lift like look lose make meet move need open paint play pull push read ride run see sell send show sing
sleep stand start stop swim take talk teach throw touch turn use wait walk want wash watch win write""".split()

EVERYDAY = (NOUNS, ADJECTIVES, ANIMALS, COLOURS, FOODS, VERBS, HOBBIES)

OPPOSITES = [
    pair.split("/")
    for pair in """hot/cold big/small up/down left/right open/closed day/night happy/sad
fast/slow light/dark full/empty young/old hard/soft high/low long/short rich/poor early/late wet/dry strong/weak
thick/thin near/far loud/quiet clean/dirty true/false heavy/light good/bad begin/end love/hate win/lose buy/sell
push/pull in/out black/white sweet/sour inside/outside first/last always/never""".split()
]

THING_COLOURS = {
    "the sky": "blue",
    "grass": "green",
    "snow": "white",
    "a banana": "yellow",
    "a lemon": "yellow",
    "a strawberry": "red",
    "blood": "red",
    "coal": "black",
    "milk": "white",
    "chocolate": "brown",
    "a carrot": "orange",
    "a pumpkin": "orange",
    "the sun": "yellow",
    "an elephant": "grey",
    "a flamingo": "pink",
    "a frog": "green",
    "a cucumber": "green",
    "an aubergine": "purple",
    "a raven": "black",
    "a tomato": "red",
    "the sea": "blue",
    "a polar bear": "white",
    "a fire engine": "red",
    "a lime": "green",
    "cotton": "white",
    "soot": "black",
}

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
TRADES = "technology food music toy travel furniture energy shipping software insurance".split()
LANGUAGES = "French German Spanish Italian Japanese Chinese Polish Dutch Greek Turkish Swedish Portuguese".split()
TOPICS = """volcanoes planets Rome bicycles whales jazz robots coffee football medicine castles dinosaurs
electricity oceans music bread history rockets gardens trains""".split()
GOODS = "milk eggs bread butter tea coffee apples soap paper flour sugar batteries candles".split()

FAVOURITES = "animal book song fruit drink sport season film game flower planet toy word".split()

# Made-up words consist of syllables and an end; what is repeated is that much more frequent.
ONSETS = "b c d f g h j k l m n p r s t v w z br ch dr fl gr kr pl sh st th tr qu y".split()
NUCLEI = "a e i o u a e i o ai ee oo ou ia".split()
CODAS = ("", "", "n", "r", "l", "s", "x", "m", "th", "k", "nd")

CJK = "李明王伟张丽陈静刘洋黄海山川田中村木林森小大美花春秋子雅文天龙金玉国华建平安东西南北京上你好啊集团公司"
KANA = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわん株式会社"
CYRILLIC = "абвгдежзиклмнопрстуфхчшэюя"
ACCENTS = {"a": "áàäåã", "e": "éèêë", "i": "íîï", "o": "óöôø", "u": "úüû", "n": "ñ", "c": "ç", "s": "š", "z": "ž"}
EMOJI = "😀😂🎉🚀🌍🐱🐶🍕🌟❤👍🔥🌈🎵⚽🦊"

JOKES = {
    "cat": ("Why did the cat sit on the computer?", "To keep an eye on the mouse."),
    "dog": ("Why did the dog sit in the shade?", "It did not want to be a hot dog."),
    "cow": ("What do you call a cow with no legs?", "Ground beef."),
    "fish": ("Why are fish so clever?", "They live in schools."),
    "duck": ("What time does a duck wake up?", "At the quack of dawn."),
    "bee": ("Why do bees have sticky hair?", "They use honeycombs."),
    "bear": ("What do you call a bear with no teeth?", "A gummy bear."),
    "elephant": ("What time is it when an elephant sits on your fence?", "Time to get a new fence."),
    "sheep": ("Where do sheep get a haircut?", "At the baa-baa shop."),
    "programmer": ("Why do programmers like dark mode?", "Light attracts bugs."),
    "computer": ("Why was the computer cold?", "It left its Windows open."),
    "book": ("Why was the maths book sad?", "It had too many problems."),
    "snake": ("What is a snake's favourite subject?", "Hiss-tory."),
    "horse": ("What did the horse say when it fell over?", "I can't giddy-up."),
    "owl": ("What do you call an owl that does magic?", "Hoo-dini."),
    "pirate": ("Why are pirates called pirates?", "Because they arrr."),
}
