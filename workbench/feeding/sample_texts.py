"""Short texts on which rules for cutting words part ways: code, prose, digits, white space, scripts, marks."""

SAMPLE_TEXTS = (
    *("hello", " hello", "Hello world", "def add(a, b):", "x = 1", "x=1\n\ny=2", "if x:\n    pass", "\treturn x"),
    *("  a", "   a", "a  b", "a   ", " \n", "\n\n\n", "a\n\n b", "a\r\nb", "\t\t\tx", " \t ", "a\u00a0b", "a\u3000b"),
    *("1", "12", "123", "1234", "12345", "1234567", " 2", " 12", "a1b22", "3.14", "1,000,000", "2024-01-02", "0x1F"),
    *("١٢٣", "１２３", "½ ²", "Ⅷ", "x²"),
    *("don't", "DON'T", "I'M", "we'LL", "it'S", "'tis", "o'clock", "'re", "can’t", "y'all"),
    *("CamelCase", "camelCase", "HTTPServer", "snake_case", "ALLCAPS", "iPhone 15", "McDonald", "aBC", "ABc"),
    *("a.b", "a...b", "!!!", "!\n", "!?\n\n", " !", "//x", "path/to", "#!/bin/sh\n", "---\n", "a-b", "(a)[b]{c}"),
    *("$5", "a+b", "<=>", "^~|", "`x`", '"x"', "@user", "#tag", "50%", "a_b", "==\n/", ".\n", "++i;", "&&", "e=mc^2"),
    *("é", "e\u0301", "ÜBER", "straße", "ñandú", "Å", "A\u030a", "ﬁ", "İstanbul", "naïve"),
    *("Привет", "Ελλάδα", "שלום", "مرحبا", "नमस्ते", "สวัสดี", "தமிழ்", "မြန်မာ", "ქართული"),
    *("你好", "你好，世界", "日本語テスト", "カタカナ", "한국어", "中文abc", "第12章", "東京2020", "。\n"),
    *("🙂", "👩\u200d💻", "🇩🇪", "a🙂b", "👍🏽", "\u200b", "\ufeffx", "a\u0300b"),
    *("<s>", "</s>", "<|endoftext|>", "<unk>", "[INST]", "<|x|>", "▁a", "Ġa", "<0x0A>", "\x00", "\x7f"),
)
