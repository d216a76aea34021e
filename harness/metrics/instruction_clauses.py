"""Plain clauses of our own in the languages that IFEval asks for, to make answers of: no comma, no full stop, no capital words.

For each letter that a prompt wants rare there is an English clause without it. langdetect sees only the first letters of words in
capitals; those of the first clause are English enough.
"""

CLAUSES: dict[str, tuple[str, ...]] = {
    "en": (
        "we would write to you when we have the time",
        "she reads her letters in the garden every morning",
        "we made bread together at home for our guests",
        "our dog will dig in mud all day long",
        "the children went out to see the old bridge",
        "my brother grew green beans behind the house",
        "you may borrow this book when you like it",
        "they were singing as they walked down the hill",
        "her old friend left some fresh fruit in the kitchen",
        "it will rain until noon and then turn warm",
        "we had coffee near the lake with our teacher",
        "his mother bought some good sturdy boots for the trip",
        "my uncle plays the drums in a big school band",
        "big birds fly high up in blue sky",
        "old maps hang on both walls of his shop",
        "her sister likes reading under the big willow",
    ),
    "ar": ("يقرأ أخي كتابا جديدا في البيت كل مساء", "ذهبت أمي إلى السوق واشترت الخبز والفواكه"),
    "bg": ("брат ми чете нова книга вкъщи всяка вечер", "майка ми отиде на пазара и купи хляб и плодове"),
    "bn": ("আমার ভাই প্রতিদিন সন্ধ্যায় বাড়িতে একটি নতুন বই পড়ে", "আমার মা বাজারে গিয়ে রুটি আর ফল কিনেছেন"),
    "de": (
        "mein Bruder liest jeden Abend zu Hause ein neues Buch",
        "meine Mutter ging auf den Markt und kaufte Brot und Obst",
    ),
    "fa": ("برادرم هر شب در خانه کتاب تازه‌ای می‌خواند", "مادرم به بازار رفت و نان و میوه خرید"),
    "fi": (
        "veljeni lukee joka ilta kotona uutta kirjaa",
        "äitini kävi torilla ja osti sieltä leipää ja hedelmiä",
    ),
    "gu": ("મારો ભાઈ રોજ સાંજે ઘરે નવું પુસ્તક વાંચે છે", "મારી માતા બજારમાં ગઈ અને રોટલી અને ફળ ખરીદ્યાં"),
    "hi": ("मेरा भाई हर शाम घर पर नई किताब पढ़ता है", "मेरी माँ बाज़ार गई और उसने रोटी और फल खरीदे"),
    "it": (
        "mio fratello legge ogni sera a casa un libro nuovo",
        "mia madre è andata al mercato e ha comprato pane e frutta",
    ),
    "kn": ("ನನ್ನ ಸಹೋದರ ಪ್ರತಿದಿನ ಸಂಜೆ ಮನೆಯಲ್ಲಿ ಹೊಸ ಪುಸ್ತಕ ಓದುತ್ತಾನೆ", "ನನ್ನ ತಾಯಿ ಮಾರುಕಟ್ಟೆಗೆ ಹೋಗಿ ರೊಟ್ಟಿ ಮತ್ತು ಹಣ್ಣು ತಂದರು"),
    "ko": ("내 동생은 매일 저녁 집에서 새 책을 읽는다", "어머니는 시장에 가서 빵과 과일을 사 오셨다"),
    "mr": ("माझा भाऊ रोज संध्याकाळी घरी नवीन पुस्तक वाचतो आहे", "माझी आई बाजारात गेली आणि तिने भाकरी व फळे विकत घेतली"),
    "ne": ("मेरो भाइ हरेक साँझ घरमा नयाँ किताब पढ्छ", "मेरी आमा बजार जानुभयो र रोटी अनि फलफूल किन्नुभयो"),
    "pa": ("ਮੇਰਾ ਭਰਾ ਹਰ ਸ਼ਾਮ ਘਰ ਵਿੱਚ ਨਵੀਂ ਕਿਤਾਬ ਪੜ੍ਹਦਾ ਹੈ", "ਮੇਰੀ ਮਾਂ ਬਾਜ਼ਾਰ ਗਈ ਅਤੇ ਰੋਟੀ ਤੇ ਫਲ ਖਰੀਦੇ"),
    "pt": (
        "o irmão dela não lê em casa à noite os livros novos",
        "a minha mãe foi à feira e comprou pão e frutas para todos",
    ),
    "ru": ("мой брат каждый вечер читает дома новую книгу", "моя мама пошла на рынок и купила там хлеб и фрукты"),
    "sw": (
        "kaka yangu anasoma kitabu kipya nyumbani kila jioni",
        "mama yangu alikwenda sokoni na kununua mkate na matunda",
    ),
    "ta": ("என் தம்பி தினமும் மாலையில் வீட்டில் புதிய புத்தகம் படிக்கிறான்", "என் அம்மா சந்தைக்குச் சென்று ரொட்டியும் பழங்களும் வாங்கினார்"),
    "te": ("నా తమ్ముడు ప్రతి సాయంత్రం ఇంట్లో కొత్త పుస్తకం చదువుతాడు", "మా అమ్మ బజారుకు వెళ్లి రొట్టె పండ్లు కొన్నది"),  # codespell:ignore te
    "th": ("น้องชายของฉันอ่านหนังสือเล่มใหม่ที่บ้านทุกเย็น", "แม่ของฉันไปตลาดแล้วซื้อขนมปังกับผลไม้"),
    "ur": ("میرا بھائی ہر شام گھر میں نئی کتاب پڑھتا ہے", "میری ماں بازار گئی اور اس نے روٹی اور پھل خریدے"),
    "vi": ("em trai tôi đọc một quyển sách mới ở nhà mỗi buổi tối", "mẹ tôi đi chợ và mua bánh mì cùng với trái cây"),
}
