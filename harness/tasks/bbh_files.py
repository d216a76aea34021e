"""The 27 files of BIG-Bench Hard at one commit of github.com/suzgunmirac/BIG-Bench-Hard, compressed, each pinned."""

from __future__ import annotations

from harness.tasks.data_files import DataFile

# By task: sha256 and bytes of the compressed file.
_FILES = {
    "boolean_expressions": ("081cb267607b9d3b8888eaec07b56965bc55da60359137244058531953ca350a", 1502),
    "causal_judgement": ("285a024b695940d44b2c0b103e82c77e9e70bd8f7a9e28ed52098175dc5275b0", 37638),
    "date_understanding": ("8903cb16d5ed6abb30cf39dea4535217a6f7d14e7dd3a729baa50248c4bec6eb", 9437),
    "disambiguation_qa": ("09d797d397e4cbd502a10bf7b1660cf6a70a6fe803d372907c91b3df2bfa5b54", 6154),
    "dyck_languages": ("e8196aa9bae7c1d3db948beb2c9714d83b47bf976c4e2d6b42c0496cff23718e", 4263),
    "formal_fallacies": ("398b72cf1a28553148cfea30e4d5295610447d82447a2170d077fcc06e5a8c2f", 17378),
    "geometric_shapes": ("c81675baa5036ee369eb41cd8e0e97dfa09139f3518a6b01f4d294f0f8130812", 9534),
    "hyperbaton": ("61146b7ac0e065f224c4eed6fffb0b801e49985973bdd34e09464c65d8e0e130", 5639),
    "logical_deduction_five_objects": ("ce4ddb687d0253a428fa04fd3e144e91d0e6c891161698a47a9f8144a4e63d81", 11534),
    "logical_deduction_seven_objects": ("ea444dbf0ad8b792c8582cc8a1d6f1afbf795cb054576b7a6883852f7f17a116", 16631),
    "logical_deduction_three_objects": ("d80794f5d307089d666f60e9837386061c6dacf77503243ab668bab20903cf70", 6992),
    "movie_recommendation": ("4d29cfa8d830ac914fb36aec496151cc93768b223bd6c58c706f332211036048", 12518),
    "multistep_arithmetic_two": ("39eaaa380e85bab403ae1a77b33da8ef668ae8bc2520f761aa5492e9c9fd30e3", 3921),
    "navigate": ("4003f3338f7059fd299a3223042a5e348d786fb3793d08dc19fb9eb43f36fac2", 2796),
    "object_counting": ("d6b019bd0a951dd0667a7c1879f40c099659208dae030b8ba7ea81739cb2c06f", 4872),
    "penguins_in_a_table": ("d86b3463dbf9a61e02fb72b50c553b1b02128ea7340284b996c295d5f4cede4f", 2323),
    "reasoning_about_colored_objects": ("8fe2cd5615072eee0318b612dc1356a89280bb48fe3ae21f39a3574342842069", 8873),
    "ruin_names": ("f3237ea60deffcdf001be53d8345a6b053b2b226e2966e15678e56a6db5ee2cf", 7944),
    "salient_translation_error_detection": ("b11f7da052962a6507753744929cbb5d29bc198dccf15ad1f0bd96292e212b29", 26068),
    "snarks": ("1c6827cdbdb06cc78f0b4de884415f8aaaa1360631e9d3fafeae7eea6ee4d1f6", 9269),
    "sports_understanding": ("d15012903e863019ad53fef5061a41a7520ef17ba01d7c1a0b0bb7c7b1d9a3a1", 4068),
    "temporal_sequences": ("008690f411327ff3eb15cdb0c7f97d4b47d8e7d2f06269e1f405461ca1828bdb", 16754),
    "tracking_shuffled_objects_five_objects": (
        "5221485de3c2dfce200e193c50b18c9496daef05483fd331c67e9f45002fd0cc",
        11738,
    ),
    "tracking_shuffled_objects_seven_objects": (
        "338ca48fb1b812609b1d634cd3c6c62858cc52227d640e4243deb5e300ac80b7",
        17223,
    ),
    "tracking_shuffled_objects_three_objects": (
        "567ebbd10cda03584f901e3964f86442fd7114dc2e1de7e9f019b98f70a122b1",
        6980,
    ),
    "web_of_lies": ("496e9841285b513e4591587f48be3f13657a99a812e8da8c1b012706ffecf6c0", 6284),
    "word_sorting": ("13dd35c9f6216f5adf3bb73604497222e60e1c06a2c145c559208e97b10687d1", 19486),
}

FILES = {
    name: DataFile(path=f"bbh/bbh/{name}.json.gz", sha256=sha256, size=size, rows_key="examples")
    for name, (sha256, size) in _FILES.items()
}
