"""What can be chosen about UPMC Food-101, and its 101 classes."""

from dataclasses import dataclass

# Those of ETH Food-101, in its order, which is alphabetical.
NAMES = """
    apple_pie baby_back_ribs baklava beef_carpaccio beef_tartare beet_salad beignets bibimbap bread_pudding
    breakfast_burrito bruschetta caesar_salad cannoli caprese_salad carrot_cake ceviche cheese_plate
    cheesecake chicken_curry chicken_quesadilla chicken_wings chocolate_cake chocolate_mousse churros
    clam_chowder club_sandwich crab_cakes creme_brulee croque_madame cup_cakes deviled_eggs donuts
    dumplings edamame eggs_benedict escargots falafel filet_mignon fish_and_chips foie_gras french_fries
    french_onion_soup french_toast fried_calamari fried_rice frozen_yogurt garlic_bread gnocchi greek_salad
    grilled_cheese_sandwich grilled_salmon guacamole gyoza hamburger hot_and_sour_soup hot_dog
    huevos_rancheros hummus ice_cream lasagna lobster_bisque lobster_roll_sandwich macaroni_and_cheese
    macarons miso_soup mussels nachos omelette onion_rings oysters pad_thai paella pancakes panna_cotta
    peking_duck pho pizza pork_chop poutine prime_rib pulled_pork_sandwich ramen ravioli red_velvet_cake
    risotto samosa sashimi scallops seaweed_salad shrimp_and_grits spaghetti_bolognese spaghetti_carbonara
    spring_rolls steak strawberry_shortcake sushi tacos takoyaki tiramisu tuna_tartare waffles
"""
CLASSES = tuple(NAMES.split())
TEXT_SOURCES = ("titles", "recipes")
RECIPE_PARTS = ("all", "ingredients")
LONGEST = 512  # positions that the text encoder has


@dataclass(frozen=True)
class Settings:
    """`train_size`, `test_size`: a class-balanced draw of so many rows by `seed`; 0 takes all there are."""

    text_source: str = "titles"  # titles of the pages (the copy that most recent work uses), or their recipes
    recipe_part: str = "all"  # of a recipe: all of it, or what follows the word "ingredients" as in BMMAL
    image_size: int = 128  # pixels a side, of the image's central square
    max_length: int = 64  # tokens; cuts 1 of the 22,716 test titles, recipes need 128 to 256
    max_missing: float = 0.005  # share of a split's images that may be absent or unreadable, texts with them
    # Share that may be cut off and repaired: of crawled images a few in a thousand are, of a copy that broke
    # off many; what is not there is grey in the picture, which a network may take for a feature.
    max_truncated: float = 0.005
    train_size: int = 0
    test_size: int = 0
    seed: int = 0

    def __post_init__(self):
        _check_one_of("text_source", self.text_source, TEXT_SOURCES)
        _check_one_of("recipe_part", self.recipe_part, RECIPE_PARTS)
        if self.text_source == "titles" and self.recipe_part != "all":
            raise ValueError(
                "recipe_part is 'ingredients', but text_source is 'titles': a title has no parts"
            )
        if not 8 <= self.image_size <= 1024:
            raise ValueError(f"image_size is {self.image_size}: make it 8 to 1024 pixels")
        if not 4 <= self.max_length <= LONGEST:
            raise ValueError(f"max_length is {self.max_length}: make it 4 to {LONGEST} tokens")
        for name in ("max_missing", "max_truncated"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: make it a share from 0 up to less than 1")
        for name in ("train_size", "test_size"):
            size = getattr(self, name)
            if size and size < len(CLASSES):
                raise ValueError(f"{name} is {size}: make it 0 (all), or at least one for each class, 101")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}: make it a number in 0..{2**32 - 1}")

    def size(self, split: str) -> int:
        return {"train": self.train_size, "test": self.test_size}[split]


def _check_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r}; known: {', '.join(known)}")
